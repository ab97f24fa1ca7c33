package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// qcow2Dir is sameDir with qcow2 images: q.qcow2 has two snapshots; base.img, mid.qcow2 and top.qcow2 are a chain, of which the middle one is shorter
// than what is above it; dirty.qcow2 was not closed, and corrupt.qcow2 is known to be corrupt.
func qcow2Dir(t *testing.T) string {
	t.Helper()
	dir := sameDir(t)
	script := `
		qemu-img create -q -f qcow2 q.qcow2 4M
		qemu-io -f qcow2 -c 'write -q -P 1 0 1M' q.qcow2
		qemu-img snapshot -c one q.qcow2
		qemu-io -f qcow2 -c 'write -q -P 2 512k 1M' q.qcow2
		qemu-img snapshot -c 1 q.qcow2
		qemu-img resize -q q.qcow2 5M
		qemu-img create -q -f raw base.img 2M
		qemu-io -f raw -c 'write -q -P 7 0 1M' base.img
		qemu-img create -q -f qcow2 -b base.img -F raw mid.qcow2 3M
		qemu-io -f qcow2 -c 'write -q -P 8 512k 1M' -c 'write -q -z 64k 64k' mid.qcow2
		qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 4M
		qemu-io -f qcow2 -c 'write -q -P 9 1M 1M' -c 'write -q -z -u 256k 64k' -c 'discard -q 1536k 64k' top.qcow2
		qemu-img create -q -f qcow2 -o lazy_refcounts=on dirty.qcow2 1M
		sh -c "exec qemu-io -f qcow2 -c 'write -q -P 5 0 512k' -c flush -c 'sigraise 9' dirty.qcow2" 2>/dev/null
		cp dirty.qcow2 corrupt.qcow2
		printf '\002' | dd of=corrupt.qcow2 bs=1 seek=79 conv=notrunc status=none`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// copied is a copy of a directory, since what is served may be changed.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := sameDir(t)
	require.NoError(t, exec.Command("cp", "-a", dir+"/.", to).Run())
	return to
}

// Goal: mistakes about qcow2 images are answered as by qemu-nbd. Method: both programs in directories alike.
func TestQEMUQcow2Mistakes(t *testing.T) {
	ours, images := asProgram(t, qemuName), qcow2Dir(t)
	for _, line := range []string{
		"-f qcow2 d.img", "-f qcow2 missing.qcow2", "corrupt.qcow2", "-f qcow2 corrupt.qcow2", "--image-opts driver=qcow2,file.filename=corrupt.qcow2",
		"-l two q.qcow2", "-l snapshot.id=9 q.qcow2", "-l snapshot.name=nix q.qcow2", "-l snapshot.id=1,snapshot.name=1 q.qcow2", "-l snapshot.id= q.qcow2",
		"-l snapshot.tag=one q.qcow2", "-l snapshot.id=1,x=y q.qcow2", "-l one d.img", "-r -f raw -l one d.img", "-l one -f raw q.qcow2", "-l one -s q.qcow2",
		"-l one -o 512 q.qcow2", "-l one --image-opts driver=null-co,size=1M", "-l one missing.qcow2", "-l one -L", "-s missing.qcow2", "-s -f qcow2 d.img",
		"-s --image-opts driver=qcow2,read-only=on,file.filename=q.qcow2",
		"--image-opts driver=qcow2,file.filename=q.qcow2,bogus=1", "--image-opts driver=qcow2", "--image-opts driver=qcow2,file.filename=missing.qcow2",
		"--image-opts driver=qcow2,file.filename=q.qcow2,overlap-check=much", "--image-opts driver=qcow2,file.filename=q.qcow2,overlap-check.template=much",
		"--image-opts driver=qcow2,file.filename=q.qcow2,l2-cache-entry-size=3", "--image-opts driver=qcow2,file.filename=q.qcow2,cache-size=1M,l2-cache-size=2M",
		"--image-opts driver=qcow2,file.filename=q.qcow2,cache-size=1M,refcount-cache-size=2M",
		"--image-opts driver=qcow2,file.filename=q.qcow2,cache-size=2M,l2-cache-size=1M,refcount-cache-size=1M",
		"--image-opts driver=qcow2,file.filename=q.qcow2,cache-clean-interval=4294967296", "--image-opts driver=qcow2,file.filename=q.qcow2,lazy-refcounts=maybe",
		"--image-opts driver=qcow2,file.filename=q.qcow2,data-file.driver=file,data-file.filename=d.img",
		"--image-opts driver=qcow2,file.filename=q.qcow2,backing.driver=file,backing.filename=missing.img", "--image-opts driver=qcow2,file.filename=q.qcow2,l2-cache-size=x",
		"--image-opts driver=qcow2,read-only=on,file.filename=q.qcow2",
		"--image-opts driver=raw,read-only=on,file.filename=d.img", "--image-opts driver=qcow2,file.filename=q.qcow2,backing=nix",
		"--image-opts driver=qcow2,file.filename=q.qcow2,encrypt.format=luks", "--image-opts driver=qcow2,file.filename=q.qcow2,overlap-check.bogus=on",
		"--image-opts driver=qcow2,file.filename=q.qcow2,overlap-check=none,overlap-check.template=all", "--image-opts driver=qcow2,file.driver=nix,file.filename=q.qcow2",
		"--image-opts driver=qcow2,file.filename=q.qcow2,cache-size=-1", "--image-opts driver=qcow2,file.filename=q.qcow2,cache-clean-interval=x",
		"--image-opts driver=qcow2,file.filename=q.qcow2,pass-discard-request=x", "--image-opts driver=qcow2,file.filename=q.qcow2,file.bogus=1",
		"--image-opts driver=qcow2,file.filename=q.qcow2,backing.driver=nix,backing.file.filename=d.img",
		"--image-opts driver=compress,file.filename=q.qcow2", "--image-opts driver=compress,file.driver=raw,file.file.filename=q.qcow2", "--image-opts driver=compress",
		"--image-opts driver=compress,file.driver=qcow2,file.file.filename=q.qcow2,foo=1", "--image-opts driver=compress,file=x",
		"--image-opts driver=compress,file.driver=qcow2,file.file.filename=missing.qcow2", "--image-opts driver=copy-on-read,file.driver=nix,file.file.filename=q.qcow2",
		"--image-opts driver=throttle,file.filename=d.img", "--image-opts driver=throttle,throttle-group=g,file.filename=d.img", "--image-opts driver=blkdebug",
	} {
		t.Run(line, func(t *testing.T) {
			args := append([]string{"-k", "DIR/s"}, strings.Fields(line)...)
			if strings.HasSuffix(line, "-L") {
				args = strings.Fields(line)
			}
			want := run(t, copied(t, images), stockQEMU, append([]string(nil), args...)...)
			require.Equal(t, want, run(t, copied(t, images), ours, args...))
			require.Equal(t, 1, want.Status)
		})
	}
}

// clients look at an export: what it says of itself, what is allocated, and what is in it.
const clients = `u="nbd+unix:///?socket=$PWD/s"
	nbdinfo "$u" | grep -v uri
	nbdinfo --map "$u"
	nbdinfo --map=qemu:allocation-depth "$u" 2>/dev/null
	nbdcopy "$u" - | sha256sum
	if ! nbdinfo --is readonly "$u"; then qemu-io -f raw -c 'write -q -P 77 300k 200k' -c 'write -q -z 1M 64k' -c 'discard -q 0 64k' "$u" && nbdcopy "$u" - | sha256sum; fi`

// Goal: qcow2 images are served as by qemu-nbd: what is said at the start, what clients see of sizes, flags, allocation, depths and data, before and after
// they write, and what is left in the images. Method: both serve copies of the same images, and the same clients look at them.
func TestQEMUQcow2Starts(t *testing.T) {
	ours, images := asProgram(t, qemuName), qcow2Dir(t)
	lines := []string{
		"q.qcow2", "-f qcow2 q.qcow2", "-r q.qcow2", "-A q.qcow2", "-A top.qcow2", "-A -r top.qcow2", "-A mid.qcow2", "-f raw -A q.qcow2",
		"-l one q.qcow2", "-l 1 q.qcow2", "-l 2 -f qcow2 q.qcow2", "-l snapshot.id=2 q.qcow2", "-l snapshot.name=1 -A q.qcow2", "-l snapshot.id=2,snapshot.name=1 q.qcow2",
		"-l one -l 2 q.qcow2", "-l snapshot.id=1 -l 2 q.qcow2", "-l one --image-opts driver=qcow2,file.filename=q.qcow2",
		"-s q.qcow2", "-s -A top.qcow2", "-s d.img", "-s -f raw d.img", "-s -r q.qcow2", "-s -A -f raw base.img",
		"-s --image-opts driver=qcow2,file.filename=q.qcow2", "-s --cache=none --aio=native q.qcow2",
		"-s --discard=unmap --detect-zeroes=unmap q.qcow2", "--discard=unmap --detect-zeroes=unmap -A top.qcow2", "--cache=writethrough q.qcow2", "--cache=unsafe q.qcow2",
		"--cache=none q.qcow2", "--detect-zeroes=on q.qcow2", "dirty.qcow2", "-r dirty.qcow2", "-r corrupt.qcow2", "-s dirty.qcow2",
		"-A --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.img",
		"-A --image-opts driver=qcow2,file.filename=top.qcow2,backing.file.filename=mid.qcow2", "-r --image-opts driver=qcow2,read-only=on,file.filename=q.qcow2",
		"-r --image-opts driver=qcow2,read-only,lazy-refcounts,file.filename=q.qcow2", "-A --image-opts driver=qcow2,backing=,file.filename=top.qcow2",
		`-A json:{"driver":"qcow2","backing":"","file.filename":"top.qcow2"}`, `-A json:{"driver":"qcow2","backing":null,"file.filename":"top.qcow2"}`,
		"--image-opts driver=qcow2,file.filename=q.qcow2,encrypt.key-secret=none",
		"--image-opts driver=qcow2,file.filename=q.qcow2,lazy-refcounts=on,pass-discard-request=off,pass-discard-snapshot=on,pass-discard-other=on,overlap-check=all",
		"--image-opts driver=qcow2,file.filename=q.qcow2,cache-size=2M,l2-cache-size=1M,l2-cache-entry-size=4096,cache-clean-interval=1",
		"--image-opts driver=qcow2,file.filename=q.qcow2,refcount-cache-size=1M,cache-clean-interval=0,overlap-check.template=none,overlap-check.main-header=on",
	}
	for n := 0; n < len(lines); n += qcowtest.Stride {
		line := lines[n]
		t.Run(line, func(t *testing.T) {
			look := func(program string) string {
				dir := copied(t, images)
				args := append([]string{"--fork", "-t", "--pid-file", "DIR/pid", "-k", "DIR/s"}, strings.Fields(line)...)
				said := run(t, dir, program, args...)
				shown := run(t, dir, "/bin/sh", "-c", clients)
				// We prefer requests of whole clusters, where QEMU's default stands.
				shown.Stdout = strings.ReplaceAll(shown.Stdout, "block_size_preferred: 65536", "block_size_preferred: 4096")
				require.NoError(t, terminate(filepath.Join(dir, "pid")), "%+v", said)
				checked := run(t, dir, "/bin/sh", "-c", `for i in *.qcow2; do qemu-img check -q -f qcow2 -U $i >/dev/null 2>&1; echo $i $?; qemu-img convert -q -O raw $i o && sha256sum o; done`)
				return fmt.Sprintf("%+v\n%s\n%+v", said, shown.Stdout, checked)
			}
			want := look(stockQEMU)
			require.Contains(t, want, "export-size")
			require.Equal(t, want, look(ours))
		})
	}
}

// Goal: a temporary directory that is not there is reported as by qemu-nbd. Method: both are told of one; the file's random name is left out.
func TestQEMUTemporaryDirectory(t *testing.T) {
	t.Setenv("TMPDIR", "/nowhere")
	name := regexp.MustCompile(`vl\.[0-9A-Za-z]+`)
	dir, err := os.MkdirTemp("/tmp", "nbd")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d.img"), make([]byte, 1<<20), 0o600))
	said := func(program string) string {
		cmd := exec.Command(program, "-k", filepath.Join(dir, "s"), "-s", "-f", "raw", "d.img")
		cmd.Dir, cmd.Args[0] = dir, qemuName
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "s"))) // which stock leaves
		return name.ReplaceAllString(string(out), "NAME")
	}
	require.Equal(t, "qemu-nbd: Failed to blk_new_open 'd.img': Could not open temporary file '/nowhere/NAME': No such file or directory\n", said(stockQEMU))
	t.Setenv("TMPDIR", "/tmp")
	ours := asProgram(t, qemuName)
	t.Setenv("TMPDIR", "/nowhere")
	require.Equal(t, said(stockQEMU), said(ours))
}
