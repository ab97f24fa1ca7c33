//go:build ganesha

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// beside is a file beside the others in a command.
var beside = regexp.MustCompile(`(\w+)@`)

// Goal: on a real server image tools say and do what qemu-img does there. Method: both are given the same commands, each with files of its own on nfs-ganesha; what they say is compared, and
// what qemu-img says of the files on the server's own disk then. Left out is what QEMU 7.2 cannot do there: backing files named by what is beside the image, and
// external data files, whose names it leaves empty.
func TestNFSImageToolsAsByQEMU(t *testing.T) {
	g := nfstest.StartGanesha(t, t.TempDir())
	program := asProgram(t, programName)
	for _, dir := range []string{"stock", "ours"} {
		require.NoError(t, os.Mkdir(g.Path(dir), 0o777))
	}
	run := func(dir, tool string, args ...string) qcowtest.Ran {
		args = append([]string(nil), args...)
		for n := range args {
			args[n] = beside.ReplaceAllString(args[n], g.StockURL(dir)+"/$1")
		}
		ran := qcowtest.Stock(t, "/", tool, args...)
		for _, text := range []*string{&ran.Stdout, &ran.Stderr} {
			*text = strings.ReplaceAll(withoutWarnings(*text), g.StockURL(dir)+"/", "")
			*text = strings.ReplaceAll(*text, programName+": ", "qemu-img: ")
		}
		return ran
	}
	for _, line := range []string{
		"create -f raw r@ 1M", "create -f qcow2 a@ 10M", "create -f qcow2 -o cluster_size=4k,preallocation=metadata m@ 1M", "create -f qcow2 -b a@ -F qcow2 o@",
		"create -f qcow2 -b r -F raw p@", "create -f qcow2 -u -b none -F raw u@ 2M", "create -f qcow2 -o compat=0.10 v@ 1M",
		"create -f qcow2 z@ 8P", "info r@", "info a@", "info o@", "info --backing-chain o@", "info -f qcow2 r@", "info -f foo r@",
		"check a@", "check m@", "check -r all m@", "check r@", "map --output=json r@", "map --output=json o@", "map --output=json m@",
		"resize a@ 20M", "resize a@ 5M", "resize --shrink a@ 5M", "resize --preallocation=metadata a@ 9M", "resize -f raw r@ 2M", "resize v@ 2M",
		"bitmap --add a@ b", "bitmap --add --disable a@ c", "bitmap --merge b a@ c", "bitmap --remove a@ zz", "bitmap --add m@ b", "bitmap --merge b -b m@ -F qcow2 a@ c",
		"snapshot -c s a@", "snapshot -c t a@", "snapshot -d s a@", "snapshot -a t a@", "snapshot -a zz a@",
		"rebase -u -b m@ -F qcow2 o@", "info --backing-chain o@", "rebase -u -b  o@", "check o@",
	} {
		words := strings.Split(line, " ")
		theirs, our := run("stock", "qemu-img", words...), run("ours", program, append([]string{"image"}, words...)...)
		theirs.Stderr, our.Stderr = oneLine(theirs.Stderr), oneLine(our.Stderr)
		if words[0] == "info" {
			theirs.Stdout, our.Stdout = withoutDiskSize(theirs.Stdout), withoutDiskSize(our.Stdout)
		}
		if diff := cmp.Diff(theirs, our); diff != "" {
			t.Errorf("%q: qemu-img (-) and we (+):\n%s", line, diff)
		}
	}
	for _, name := range []string{"a", "m", "o", "v"} {
		qcowtest.MustEqual(t, g.Path("stock/"+name), "qcow2", g.Path("ours/"+name), "qcow2")
		if diff := cmp.Diff(described(t, g.Path("stock"), name), described(t, g.Path("ours"), name)); diff != "" {
			t.Errorf("qemu-img's %s (-) and ours (+):\n%s", name, diff)
		}
		qcowtest.MustBeClean(t, g.Path("ours/"+name), false)
	}
}

// Goal: the server's overlays on a real share are chains that QEMU reads there. Method: ours makes an image and overlays of it; qemu-img compares the chain with what clients wrote.
func TestNFSSnapshotsAreReadByQEMU(t *testing.T) {
	g := nfstest.StartGanesha(t, t.TempDir())
	own := startOwnNamed(t, "a", "--control=m", "--create", "4M", "a="+g.StockURL("a.qcow2"))
	want := filepath.Join(t.TempDir(), "want")
	qcowtest.Must(t, "/", "qemu-img", "create", "-q", "-f", "raw", want, "4M")
	for n := range 3 {
		write := []string{"-f", "raw", "-c", fmt.Sprintf("write -q -P %d %dk 128k", n+1, n*64), "-c", "flush"}
		qcowtest.Must(t, "/", "qemu-io", append(write, want)...)
		qcowtest.Must(t, "/", "qemu-io", append(write, "nbd+unix:///a?socket="+own.socket)...)
		qcowtest.Must(t, own.cmd.Dir, asProgram(t, programName), "ctl", "--control", "m", "snapshot", "create", "a", "--name", fmt.Sprint(n))
	}
	require.NoError(t, own.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, own.cmd.Wait())
	for _, name := range []string{g.StockURL("a.0.1.2.qcow2"), g.Path("a.0.1.2.qcow2")} {
		qcowtest.Must(t, "/", "qemu-img", "compare", "-f", "raw", "-F", "qcow2", want, name)
		require.Equal(t, 4, strings.Count(qcowtest.Must(t, "/", "qemu-img", "info", "--backing-chain", name), "image: "))
	}
}
