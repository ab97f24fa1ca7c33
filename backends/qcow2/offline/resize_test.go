package offline

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: a disk becomes longer and shorter, and the rest of it stays. Method: random sizes in turn with work by QEMU, in images of every kind, with
// snapshots and external data; qemu-img finds the image clean and reads what it must after each step.
func TestResizeOfAnyImage(t *testing.T) {
	for seed := uint64(0); seed < 24; seed += qcowtest.Stride {
		rng := rand.New(rand.NewPCG(seed, 8))
		o := qcowtest.RandomOptions(rng)
		o.Bitmaps, o.BackingLevels, o.CompressedWork = 0, 0, o.CompressedWork && seed%2 == 0
		if o.Version == 2 {
			o.Snapshots = 0
		}
		t.Run(fmt.Sprintf("%d-%s", seed, o), func(t *testing.T) {
			t.Parallel()
			im := qcowtest.Make(t, t.TempDir(), o, seed)
			for range 5 {
				resize(t, im, rng)
				im.Verify(t)
				im.Work(t, 5)
				im.Verify(t)
			}
		})
	}
}

func resize(t *testing.T, im *qcowtest.Image, rng *rand.Rand) {
	o := im.Options
	size := int64(o.ClusterBytes) * (1 + rng.Int64N(2*o.SizeBytes/int64(o.ClusterBytes)+1))
	options := ResizeOptions{SizeBytes: size}
	if size > int64(len(im.Flat)) && !o.CompressedWork { // QEMU does not compress over a place that is set apart
		options.Preallocation = Preallocation(rng.IntN(2))
	}
	if o.DataFile {
		f, err := os.OpenFile(filepath.Join(filepath.Dir(im.Path), qcowtest.DataFileName), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		options.Data = Disk{f}
	}
	// What an earlier work left behind an end within a cluster is not ours to hide.
	if len(im.Flat)%o.ClusterBytes != 0 {
		options.SizeBytes = min(size, int64(len(im.Flat)/o.ClusterBytes*o.ClusterBytes))
		options.Preallocation = PreallocationOff
	}
	if options.SizeBytes == 0 {
		return
	}
	change(t, im.Path, func(i *Image) error { return i.Resize(options) })
	flat := make([]byte, options.SizeBytes)
	copy(flat, im.Flat)
	im.Flat = flat
}

// Goal: a longer disk below does not shine through, whatever is set apart. Method: an overlay that is shorter than its backing file becomes longer in each way, and
// is written to.
func TestResizeHidesTheBackingFile(t *testing.T) {
	for _, extended := range []string{"off", "on"} {
		for how := range PreallocationFull + 1 {
			dir := t.TempDir()
			qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", "base", "4M")
			qcowtest.Must(t, dir, "qemu-io", "-f", "raw", "-c", "write -P 7 0 4M", "base")
			qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2="+extended, "-b", "base", "-F", "raw", "top", "1M")
			path := filepath.Join(dir, "top")
			change(t, path, func(i *Image) error {
				return i.Resize(ResizeOptions{SizeBytes: 8 << 20, BackingBytes: 4 << 20, Preallocation: how})
			})
			flat := append(bytes.Repeat([]byte{7}, 1<<20), make([]byte, 7<<20)...)
			for range 2 {
				if err := os.WriteFile(filepath.Join(dir, "flat"), flat, 0o600); err != nil {
					t.Fatal(err)
				}
				qcowtest.MustBeClean(t, path, false)
				qcowtest.MustEqual(t, path, "qcow2", filepath.Join(dir, "flat"), "raw")
				qcowtest.Must(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -P 9 2049k 5k", "top")
				copy(flat[2049<<10:], bytes.Repeat([]byte{9}, 5<<10))
			}
		}
	}
}

// Goal: the backing file of an image is another one, or none. Method: qemu-img reads what that has.
func TestSetBacking(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", name, "1M")
		qcowtest.Must(t, dir, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P %d 0 1M", len(name)+int(name[0])%7), name)
	}
	qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", "none", "1M")
	qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "one", "-F", "raw", "top")
	path := filepath.Join(dir, "top")
	for _, step := range []struct{ backing, format, equals string }{{"two", "raw", "two"}, {"", "", "none"}, {"one", "raw", "one"}} {
		change(t, path, func(i *Image) error { return i.SetBacking(step.backing, step.format) })
		qcowtest.MustBeClean(t, path, false)
		qcowtest.MustEqual(t, path, "qcow2", filepath.Join(dir, step.equals), "raw")
	}
}

// Goal: a disk that has become much shorter has no refcount blocks left that count nothing, and a file as short as qemu-img leaves it; and it can become long again.
// Method: disks that QEMU has filled are shrunk, grown and filled again, by us and by QEMU in turn.
func TestShrinkDropsRefcountBlocks(t *testing.T) {
	for _, options := range []string{"cluster_size=512,refcount_bits=64", "cluster_size=512", "cluster_size=4k"} {
		dir := t.TempDir()
		path, theirs := filepath.Join(dir, "image"), filepath.Join(dir, "theirs")
		qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "40M")
		for range 2 {
			qcowtest.Must(t, dir, "qemu-io", "-c", "write -P 7 0 40M", path)
			qcowtest.Must(t, dir, "cp", path, theirs)
			change(t, path, func(i *Image) error { return i.Resize(ResizeOptions{SizeBytes: 1 << 20}) })
			qcowtest.MustBeClean(t, path, false)
			qcowtest.Must(t, dir, "qemu-img", "resize", "-q", "--shrink", theirs, "1M")
			qcowtest.MustEqual(t, path, "qcow2", theirs, "qcow2")
			ours, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if stock, err := os.Stat(theirs); err != nil || ours.Size() > stock.Size() {
				t.Errorf("%s: our file has %d bytes, qemu-img's %v (%v)", options, ours.Size(), stock, err)
			}
			change(t, path, func(i *Image) error { return i.Resize(ResizeOptions{SizeBytes: 40 << 20}) })
			qcowtest.MustBeClean(t, path, false)
		}
	}
}
