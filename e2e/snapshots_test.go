//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"nbd-dataplane/interop/subject"
)

const (
	snapshotBytes  = 192 << 20 // the size of the disk that snapshots are taken of
	snapshotRounds = 6         // see guest/snapshots.sh
)

// Goal: a disk of qcow2 may have snapshots taken of it under a virtual machine that writes, on top of it. Method: the guest makes a file system and
// writes files, over others too, while the host puts a new overlay on top each round; then the guest's files are right, every image is
// consistent, and the file system of every snapshot is as after a power cut: its journal makes it clean.
func TestOverlaysUnderGuest(t *testing.T) {
	d := newSnapped(t)
	server := d.serve(t, subject.Options{})
	layers := []string{d.image()}
	d.guest(t).converse(t, "snapshots", map[string]string{"size": strconv.Itoa(snapshotBytes)}, func(round string) {
		image := filepath.Join(d.dir, "overlay"+round+".qcow2")
		d.ctl(t, "snapshot", "create", exportName, "--file", image)
		layers = append(layers, image)
	}, "-drive", "if=none,id=disk0,format=raw,discard=unmap,file=nbd:unix:"+server.Socket+":exportname="+exportName,
		"-device", "virtio-blk-pci,drive=disk0")
	server.Stop(t)
	for n, image := range layers {
		d.host(t, "qemu-img", "check", image)
		d.fsck(t, image, n < len(layers)-1)
	}
	if len(layers) != 1+snapshotRounds {
		t.Errorf("%d images; %d snapshots were to be taken", len(layers), snapshotRounds)
	}
}

// Goal: and inside of it. Method: the same with the kernel's nbd device, over four connections; older snapshots are deleted again, and what is left of
// them is looked at.
func TestInternalSnapshotsUnderGuest(t *testing.T) {
	d := newSnapped(t)
	server := d.serve(t, subject.Options{TCP: true})
	var kept []string
	facts := map[string]string{"size": strconv.Itoa(snapshotBytes), "port": strconv.Itoa(server.Port)}
	d.guest(t).converse(t, "snapshots", facts, func(round string) {
		name := "round" + round
		d.ctl(t, "snapshot", "create", "--internal", exportName, name)
		if kept = append(kept, name); len(kept) > snapshotRounds/2 {
			d.ctl(t, "snapshot", "delete", exportName, kept[0])
			kept = kept[1:]
		}
	}, "-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile=")
	server.Stop(t)
	d.host(t, "qemu-img", "check", d.image())
	d.fsck(t, d.image(), false)
	for _, name := range kept {
		d.fsck(t, d.image(), true, "-l", name)
	}
	if len(kept) != snapshotRounds/2 {
		t.Errorf("snapshots %v are left of %d", kept, snapshotRounds)
	}
}

// snapped is a served disk of qcow2.
type snapped struct{ resized }

func newSnapped(t *testing.T) snapped { return snapped{newResized(t)} }

func (s snapped) image() string { return filepath.Join(s.dir, "disk.qcow2") }

func (s snapped) guest(t *testing.T) guest {
	t.Helper()
	vm, err := newGuest(s.root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// serve makes the image and starts its server.
func (s snapped) serve(t *testing.T, o subject.Options) *subject.Server {
	t.Helper()
	s.host(t, s.program.Path(), "image", "create", "-q", s.image(), strconv.Itoa(snapshotBytes))
	o.File, o.Name = s.image(), exportName
	o.Args = []string{"-f", "qcow2", "--discard=unmap", "--control", s.control()}
	return s.program.Start(t, o)
}

// host runs a command that must not fail.
func (s snapped) host(t *testing.T, program string, args ...string) {
	t.Helper()
	if text, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %v: %v\n%s", program, args, err, text)
	}
}

// fsck checks the file system that is in an image, or one of its snapshots, by way of a copy. One that was in use may have work for its
// journal, and nothing else.
func (s snapped) fsck(t *testing.T, image string, inUse bool, of ...string) {
	t.Helper()
	flat := filepath.Join(s.dir, "flat.img")
	defer os.Remove(flat)
	s.host(t, "qemu-img", append([]string{"convert", "-O", "raw"}, append(of, image, flat)...)...)
	if inUse {
		s.host(t, "/sbin/e2fsck", "-E", "journal_only", "-p", flat)
	}
	s.host(t, "/sbin/e2fsck", "-fn", flat)
}
