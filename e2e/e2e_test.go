//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"nbd-dataplane/interop/subject"
)

const (
	diskBytes = 1 << 30

	// What may still be allocated at the end. The guest keeps 48 MiB of files and the file system's own tables, and has
	// written and trimmed 80 MiB more: without the trims reaching the file, the disk would hold more than this.
	keptBytesMax = 100 << 20
)

// Goal: a virtual machine keeps its files on a disk of ours, whichever client it uses. Method: one disk; Linux's nbd
// driver makes, fills and checks a file system on it over TCP with one and four connections; then, behind a server
// that was started afresh, QEMU's nbd: drive shows the same disk on virtio-blk over a unix socket; at the end the file
// itself is checked.
func TestDiskInGuest(t *testing.T) {
	root, err := subject.Root()
	if err != nil {
		t.Fatal(err)
	}
	program, err := subject.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vm, err := newGuest(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	disk := newDisk(t)
	serve := []string{"-f", "raw", "--discard=unmap"}
	facts := map[string]string{"size": strconv.Itoa(diskBytes)}

	overTCP := program.Start(t, subject.Options{File: disk, Name: "e2e", TCP: true, Args: serve})
	facts["port"] = strconv.Itoa(overTCP.Port)
	vm.run(t, "nbd-client", facts,
		"-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile=")
	overTCP.Stop(t)

	overUnix := program.Start(t, subject.Options{File: disk, Args: serve})
	vm.run(t, "virtio-blk", facts,
		"-drive", "if=none,id=disk0,format=raw,discard=unmap,file=nbd:unix:"+overUnix.Socket,
		"-device", "virtio-blk-pci,drive=disk0")
	overUnix.Stop(t)

	checkFile(t, disk)
}

func newDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, diskBytes); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkFile looks at the image without a server in between: its file system is clean and its free space is holes.
func checkFile(t *testing.T, disk string) {
	t.Helper()
	if text, err := exec.Command("/sbin/e2fsck", "-fn", disk).CombinedOutput(); err != nil {
		t.Errorf("e2fsck of the image: %v\n%s", err, text)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(disk, &st); err != nil {
		t.Fatal(err)
	}
	if kept := st.Blocks * 512; kept > keptBytesMax {
		t.Errorf("the image keeps %d MiB: the guest's trims did not reach it", kept>>20)
	}
}
