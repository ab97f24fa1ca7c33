package offline

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// change opens an image, changes it, and fails the test if that cannot be done.
func change(t *testing.T, path string, do func(*Image) error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	im, err := Open(Disk{f}, format.ForUse)
	if err == nil {
		err = im.BeginChange()
	}
	if err == nil {
		err = do(im)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Goal: snapshots are taken, deleted and applied in images of every kind. Method: random ones in turn with work by QEMU, in images of QEMU; after
// each step qemu-img finds the image clean and reads what it must from the disk and from each snapshot.
func TestSnapshotsOfAnyImage(t *testing.T) {
	for seed := uint64(0); seed < 24; seed += qcowtest.Stride {
		rng := rand.New(rand.NewPCG(seed, 7))
		o := qcowtest.RandomOptions(rng)
		o.DataFile, o.DataFileRaw, o.Bitmaps, o.RefcountBits = false, false, 0, max(o.RefcountBits, 16)
		if o.Version == 2 {
			o.RefcountBits = 16
		}
		t.Run(fmt.Sprintf("%d-%s", seed, o), func(t *testing.T) {
			t.Parallel()
			im := qcowtest.Make(t, t.TempDir(), o, seed)
			for n := range 6 {
				changeSnapshots(t, im, rng, n)
				im.Verify(t)
				im.Work(t, 5)
			}
			im.Verify(t)
		})
	}
}

func changeSnapshots(t *testing.T, im *qcowtest.Image, rng *rand.Rand, n int) {
	kind := rng.IntN(3)
	if len(im.Snapshots) == 0 {
		kind = 0
	}
	which := rng.IntN(max(1, len(im.Snapshots)))
	switch kind {
	case 0:
		name := fmt.Sprintf("ours%d", n)
		change(t, im.Path, func(i *Image) error { return i.CreateSnapshot(name, time.Unix(1e9, 5)) })
		im.Snapshots = append(im.Snapshots, qcowtest.Snapshot{Name: name, Flat: append([]byte(nil), im.Flat...)})
	case 1:
		change(t, im.Path, func(i *Image) error { return i.DeleteSnapshot(im.Snapshots[which].Name) })
		im.Snapshots = append(im.Snapshots[:which], im.Snapshots[which+1:]...)
	case 2:
		change(t, im.Path, func(i *Image) error { return i.ApplySnapshot(im.Snapshots[which].Name) })
		copy(im.Flat, im.Snapshots[which].Flat)
	}
}

// Goal: a snapshot that the refcounts have no room for changes nothing. Method: counts of one bit; qemu-img finds the image clean and as it was.
func TestSnapshotWithoutRoomForCounts(t *testing.T) {
	o := qcowtest.Options{Version: 3, ClusterBytes: 4096, RefcountBits: 1, Preallocation: "off", SizeBytes: 1 << 20}
	im := qcowtest.Make(t, t.TempDir(), o, 1)
	f, err := os.OpenFile(im.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, err := Open(Disk{f}, format.ForUse)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.CreateSnapshot("s", time.Now()); err == nil {
		t.Error("the snapshot was taken")
	}
	im.Verify(t)
}

// Goal: the L1 table of a disk without anything has no clusters, and is given up with nothing; QEMU has it at the header. Method: disks of no size, made by
// QEMU and by us, with a snapshot; they grow, the snapshot is applied and deleted; qemu-img finds neither errors nor leaks.
func TestSnapshotsOfNothing(t *testing.T) {
	for _, by := range []string{"qemu-img", "us"} {
		t.Run(by, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			if by == "qemu-img" {
				qcowtest.Must(t, "", "qemu-img", "create", "-q", "-f", "qcow2", path, "0")
				qcowtest.Must(t, "", "qemu-img", "snapshot", "-c", "s", path)
			} else {
				create(t, path, CreateOptions{})
				qcowtest.MustBeClean(t, path, false)
				change(t, path, func(i *Image) error { return i.CreateSnapshot("s", time.Unix(1e9, 0)) })
			}
			qcowtest.MustBeClean(t, path, false)
			change(t, path, func(i *Image) error { return i.Resize(ResizeOptions{SizeBytes: 1 << 20}) })
			qcowtest.Must(t, "", "qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", path)
			for _, step := range []func(*Image) error{
				func(i *Image) error { return i.ApplySnapshot("s") },
				func(i *Image) error { return i.Resize(ResizeOptions{SizeBytes: 1 << 20}) },
				func(i *Image) error { return i.DeleteSnapshot("s") },
			} {
				change(t, path, step)
				qcowtest.MustBeClean(t, path, false)
			}
		})
	}
}
