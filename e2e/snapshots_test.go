//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nbd-dataplane/interop/subject"
)

// snapshotBytes is the size of the disk that snapshots are taken of.
const snapshotBytes = 192 << 20

// Goal: a disk of qcow2 may have snapshots taken of it under a virtual machine that writes. Method: the guest makes a file system and
// writes files, over others too, while the host puts a new overlay on top each round; then the guest's files are right, every image is
// consistent, and the file system of every snapshot is as after a power cut: its journal makes it clean.
func TestOverlaysUnderGuest(t *testing.T) {
	d := newSnapped(t)
	server := d.serve(t, subject.Options{})
	layers := []string{d.image()}
	d.guest(t).converse(t, "snapshots", map[string]string{"size": strconv.Itoa(snapshotBytes)}, func(round string) {
		layers = append(layers, d.overlay(t, round, layers[len(layers)-1]))
	}, "-drive", "if=none,id=disk0,format=raw,discard=unmap,file=nbd:unix:"+server.Socket+":exportname="+exportName,
		"-device", "virtio-blk-pci,drive=disk0")
	server.Stop(t)
	for n, image := range layers {
		d.host(t, "qemu-img", "check", image)
		d.fsck(t, image, n < len(layers)-1)
	}
	if len(layers) != 7 {
		t.Errorf("%d images; six snapshots were to be taken", len(layers))
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

// overlay has the export continue in a new image on top of the one before.
func (s snapped) overlay(t *testing.T, round, below string) string {
	t.Helper()
	image := filepath.Join(s.dir, "overlay"+round+".qcow2")
	node := strings.TrimSuffix(strings.Replace(filepath.Base(below), "disk", "disk0", 1), ".qcow2")
	s.host(t, s.program.Path(), "image", "create", "-q", "-b", below, "-F", "qcow2", image)
	s.ctl(t, "qmp", "blockdev-add", "driver=qcow2", "node-name=overlay"+round, "backing=null", "discard=unmap", "file.driver=file", "file.filename="+image)
	s.ctl(t, "qmp", "blockdev-snapshot", "node="+node, "overlay=overlay"+round)
	return image
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
