package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// lockWarning is a part of what is said of files that are opened for writing on a server without locks.
const lockWarning = "no lock is taken at the NFS server"

// withoutWarnings leaves out the lines that warn of missing locks.
func withoutWarnings(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, lockWarning) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// toolLines are commands of image. NAME@ is a file beside the others: on the server, or in the directory.
const toolLines = `
	create -f raw r.img@ 1M
	create -f raw -o preallocation=full full.img@ 1M
	create -f qcow2 a.qcow2@ 4M
	create -f qcow2 a.qcow2@ 3M
	create -o cluster_size=4k,preallocation=full,refcount_bits=8 b.qcow2@ 1M
	create -f qcow2 -o preallocation=metadata m.qcow2@ 1M
	create -q -b a.qcow2 -F qcow2 o.qcow2@
	create -q -b r.img -F raw p.qcow2@
	create -q -b a.qcow2@ -F qcow2 u.qcow2@ 5M
	create -b none -F qcow2 -u x.qcow2@ 1M
	create -b a.qcow2 -F qcow2 a.qcow2@
	create -f qcow2 a.qcow2@ 8P
	info a.qcow2@
	info --output=json b.qcow2@
	info --backing-chain o.qcow2@
	info -f qcow2 r.img@
	info -f foo r.img@
	info -f raw a.qcow2@
	check a.qcow2@
	check --output=json b.qcow2@
	check -r all m.qcow2@
	check r.img@
	map --output=json o.qcow2@
	map b.qcow2@
	map --output=json u.qcow2@
	resize a.qcow2@ 6M
	resize --preallocation=metadata m.qcow2@ 2M
	resize --preallocation=full b.qcow2@ 2M
	resize a.qcow2@ 1M
	resize --shrink a.qcow2@ 1M
	resize -f raw r.img@ 2M
	resize -f raw --shrink r.img@ 512k
	resize -f raw --preallocation=full r.img@ 768k
	resize u.qcow2@ +3M
	rebase -u -b m.qcow2 -F qcow2 o.qcow2@
	info --backing-chain o.qcow2@
	rebase -u -b m.qcow2@ -F qcow2 p.qcow2@
	rebase -u o.qcow2@
	bitmap --add -g 64k a.qcow2@ one
	bitmap --add --disable a.qcow2@ two
	bitmap --add m.qcow2@ one
	bitmap --merge one -b m.qcow2@ -F qcow2 a.qcow2@ two
	bitmap --remove a.qcow2@ one
	bitmap --clear a.qcow2@ nope
	info a.qcow2@
	snapshot -c s1 b.qcow2@
	snapshot -c s2 b.qcow2@
	snapshot -d s1 b.qcow2@
	snapshot -a s2 b.qcow2@
	snapshot -a nope b.qcow2@
	check b.qcow2@
`

// Goal: image tools do to files on NFS what they do to those of this machine, and all of it is on the server's stable storage when they end. Method: the same commands on
// both, one after the other; what is said is compared, and the images.
func TestImageToolsOnNFS(t *testing.T) {
	server, _ := onNFS(t)
	program, local, copies := asProgram(t, programName), t.TempDir(), t.TempDir()
	_, query, _ := strings.Cut(server.URL("/export/x"), "?")
	for n, line := range strings.Split(strings.TrimSpace(toolLines), "\n") {
		line = strings.TrimSpace(line)
		if n%qcowtest.Stride != 0 && !strings.HasPrefix(line, "create") {
			continue // what it works on is there all the same
		}
		var here, there []string
		for _, word := range strings.Fields(line) {
			name, isFile := strings.CutSuffix(word, "@")
			here, there = append(here, name), append(there, name)
			if isFile {
				there[len(there)-1] = server.URL("/export/" + name)
			}
		}
		want := qcowtest.Stock(t, local, program, append([]string{"image"}, here...)...)
		got := qcowtest.Stock(t, copies, program, append([]string{"image"}, there...)...)
		for _, text := range []*string{&got.Stdout, &got.Stderr} {
			*text = withoutWarnings(*text)
			*text = strings.ReplaceAll(strings.ReplaceAll(*text, "nfs://"+server.Address()+"/export/", ""), "?"+query, "")
		}
		if here[0] == "info" || here[0] == "map" {
			want.Stdout, got.Stdout = sameOnNFS(want.Stdout), sameOnNFS(got.Stdout)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: on this machine (-) and over NFS (+):\n%s", line, diff)
		}
	}
	for _, name := range server.Names("/export") {
		require.Zero(t, server.UnstableBytes("/export/"+name), name)
		require.NoError(t, os.WriteFile(filepath.Join(copies, name), server.Stable("/export/"+name), 0o600))
		if strings.HasSuffix(name, ".qcow2") && !strings.Contains("pux", name[:1]) { // QEMU knows no ports, and what is not there
			qcowtest.MustBeClean(t, filepath.Join(copies, name), false)
		}
	}
	files, err := os.ReadDir(local)
	require.NoError(t, err)
	require.Len(t, server.Names("/export"), len(files))
	for _, f := range files {
		one, err := os.ReadFile(filepath.Join(local, f.Name()))
		require.NoError(t, err)
		require.Len(t, server.Stable("/export/"+f.Name()), len(one), f.Name())
		if f.Name() != "b.qcow2" && f.Name() != "u.qcow2" && f.Name() != "p.qcow2" { // they have times, or the URLs of others
			require.Equal(t, one, server.Stable("/export/"+f.Name()), f.Name())
		}
	}
}

// sameOnNFS leaves out what differs by the file system: the space that is taken, where there are holes, and the path to a file beside.
func sameOnNFS(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		switch {
		case strings.Contains(line, "disk size: "), strings.Contains(line, `"actual-size"`):
			continue
		}
		line, _, _ = strings.Cut(line, " (actual path: ")
		kept = append(kept, strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll(line, `"zero": true, "data": false, "offset"`, `"zero": false, "data": true, "offset"`), `"./`, `"`)))
	}
	return strings.Join(kept, "\n")
}

// Goal: what stands in the way of an image tool is named with its remedy, nothing is left behind, and files of others stay as they are. Method: one mistake, or fault, each.
func TestImageToolsOnNFSRefuse(t *testing.T) {
	server, _ := onNFS(t)
	program, dir := asProgram(t, programName), t.TempDir()
	server.Put("/export/secret", nfstest.File{SizeBytes: 1 << 20, Mode: 0o444})
	server.Put("/export/dir", nfstest.File{IsDir: true})
	url := func(name string) string { return server.URL("/export/" + name) }
	noSpace := func(first int) func() {
		disarm := server.Inject(nfstest.Rule{Proc: nfstest.Write, First: first, Count: -1, Fault: nfstest.Fault{Status: nfstest.NoSpc}})
		return func() { require.NotZero(t, disarm()) }
	}
	for _, c := range []struct {
		args  []string
		says  string
		fault func() func()
	}{
		{args: []string{"info", url("none")}, says: "look up none: no such file or directory (NFS3ERR_NOENT); create the file first"},
		{args: []string{"info", url("dir")}, says: "it is a directory"},
		{args: []string{"info", url("x") + "&bogus=1"}, says: `unknown parameter "bogus"; use one of connections`},
		{args: []string{"create", url("no/a"), "1M"}, says: "look up the directory no: no such file or directory (NFS3ERR_NOENT); make the directory first"},
		{args: []string{"create", "-o", "preallocation=falloc", url("a"), "1M"}, says: "'full' writes zeroes instead"},
		{args: []string{"create", "-f", "qcow2", "-o", "preallocation=falloc", url("a"), "1M"}, says: "'full' writes zeroes instead"},
		{args: []string{"create", url("secret") + "&uid=5&gid=5", "1M"}, says: "it may be read and not written: permission denied; change its mode, give another uid= and gid="},
		{args: []string{"create", "-f", "qcow2", "-b", url("none"), "-F", "raw", url("a")}, says: "look up none: no such file"},
		{args: []string{"create", "-f", "qcow2", "-b", "./a", "-F", "raw", url("a")}, says: "the same filename as the backing file"},
		{args: []string{"create", "-f", "qcow2", url("a"), "1M"}, says: "Could not write to the image: No space left on device", fault: func() func() { return noSpace(2) }},
		{args: []string{"resize", "-f", "raw", url("secret") + "&uid=5&gid=5", "2M"}, says: "it may be read and not written"},
		{args: []string{"info", "nfs://127.0.0.1/export/a?nfsport=1&mountport=1"}, says: "connection refused; start the NFS server on 127.0.0.1"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if c.fault != nil {
				defer c.fault()()
			}
			ran := qcowtest.Stock(t, dir, program, append([]string{"image"}, c.args...)...)
			require.NotZero(t, ran.Status)
			require.Contains(t, ran.Stderr, c.says)
			require.False(t, server.Exists("/export/a"))
			require.Equal(t, make([]byte, 1<<20), server.Stable("/export/secret"))
		})
	}
}

// Goal: what a server loses while a tool works is there in the end. Method: it loses all that is not committed before each of the first COMMITs.
func TestImageToolsOnNFSOutliveRestarts(t *testing.T) {
	server, _ := onNFS(t)
	program, dir := asProgram(t, programName), t.TempDir()
	const losses = 4
	disarm := server.Inject(nfstest.Rule{Proc: nfstest.Commit, Count: losses, Fault: nfstest.Fault{Before: func() { server.LoseUnstable(nfstest.LoseAll) }}})
	ran := qcowtest.Stock(t, dir, program, "image", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", server.URL("/export/a"), "1M")
	require.Zero(t, ran.Status, ran.Stderr)
	require.Equal(t, losses, disarm())
	require.Contains(t, ran.Stderr, lockWarning)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), server.Stable("/export/a"), 0o600))
	qcowtest.MustBeClean(t, filepath.Join(dir, "a"), false)
}
