package offline

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// failing is a File one of whose writes or syncs fails. A write that fails is done in part.
type failing struct {
	Disk
	left int // operations up to that one, which is the last
}

func (f *failing) fails() bool {
	f.left--
	return f.left == 0
}

func (f *failing) WriteAt(p []byte, at int64) (int, error) {
	if !f.fails() {
		return f.Disk.WriteAt(p, at)
	}
	n, err := f.Disk.WriteAt(p[:len(p)/2&^(format.SectorBytes-1)], at)
	if err == nil {
		err = syscall.ENOSPC
	}
	return n, err
}

func (f *failing) Sync() error {
	if f.fails() {
		return syscall.EIO
	}
	return f.Disk.Sync()
}

// Goal: a change of snapshots that fails leaves an image without errors, and can be made again. Method: each write and sync of the creation, the deletion and
// the application of a snapshot fails, once; qemu-img finds no more than leaks, repairs those, and the change is then made.
func TestSnapshotsFail(t *testing.T) {
	dir := t.TempDir()
	pristine := filepath.Join(dir, "pristine")
	qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", pristine, "4M")
	qcowtest.Must(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -P 1 0 256k", "-c", "write -P 1 3M 64k", pristine)
	qcowtest.Must(t, dir, "qemu-img", "snapshot", "-c", "s", pristine)
	qcowtest.Must(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -P 2 128k 256k", pristine)
	for name, do := range map[string]func(*Image) error{
		"create": func(i *Image) error { return i.CreateSnapshot("new", time.Unix(1e9, 0)) },
		"delete": func(i *Image) error { return i.DeleteSnapshot("s") },
		"apply":  func(i *Image) error { return i.ApplySnapshot("s") },
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				path := copyOf(t, pristine)
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				im, err := Open(&failing{Disk: Disk{f}, left: n}, format.ForUse)
				if err != nil {
					t.Fatal(err)
				}
				if do(im) == nil {
					if n < 5 {
						t.Errorf("there were %d writes", n)
					}
					return
				}
				what := fmt.Sprintf("%s without operation %d", name, n)
				if got, ran := qcowtest.Check(t, path, "leaks"); got.Corruptions > 0 || got.Leaks > 0 {
					t.Fatalf("%s: %+v\n%s", what, got, ran.Stderr)
				}
				change(t, path, func(i *Image) error {
					err := do(i)
					if err == ErrNoSnapshot { // it was gone already
						return nil
					}
					return err
				})
				qcowtest.MustBeClean(t, path, false)
			}
		})
	}
}
