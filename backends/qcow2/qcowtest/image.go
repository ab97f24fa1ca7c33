package qcowtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Image is a qcow2 image on disk and what must be read from it.
type Image struct {
	Options Options
	Path    string
	// Flat is what a client reads. It is the test's: operations done by others than Work are to be done to it as well.
	Flat []byte
	// Snapshots are the internal snapshots in order, each with what it holds.
	Snapshots []Snapshot
	// Bitmaps are the names of the persistent bitmaps.
	Bitmaps []string

	touched map[int]bool // clusters that something was done to
	rng     *rand.Rand
}

// Snapshot is an internal snapshot and what it holds.
type Snapshot struct {
	Name string
	Flat []byte
}

// Make creates an image, with its backing chain and data file, in a directory that must be empty, and does work on it. The
// same seed makes the same image, but for dates.
func Make(t testing.TB, dir string, o Options, seed uint64) *Image {
	t.Helper()
	return MakeBy(t, dir, o, seed, func(path, backing, backingFormat string) {
		args := []string{"create", "-q", "-f", "qcow2", "-o", o.CreateOptions()}
		if backing != "" {
			args = append(args, "-b", backing, "-F", backingFormat)
		}
		Must(t, dir, "qemu-img", append(args, path, fmt.Sprint(o.SizeBytes))...)
	})
}

// DataFileName is the name of the external data file of images that have one, in the image's directory.
const DataFileName = "data.raw"

// MakeBy is Make for an image that somebody else creates; the rest is QEMU's.
func MakeBy(t testing.TB, dir string, o Options, seed uint64, create func(path, backing, backingFormat string)) *Image {
	t.Helper()
	im := &Image{Options: o, Path: filepath.Join(dir, "image.qcow2"), rng: rand.New(rand.NewPCG(seed, 4)), touched: map[int]bool{}}
	im.Flat = make([]byte, o.SizeBytes)
	var backing, backingFormat string
	if o.BackingLevels > 0 {
		backing, backingFormat = im.makeBacking(t, dir)
	}
	create(im.Path, backing, backingFormat)
	for n := range o.Bitmaps {
		im.AddBitmap(t, fmt.Sprintf("bitmap%d", n))
	}
	im.Work(t, 12)
	for n := range o.Snapshots {
		im.TakeSnapshot(t, fmt.Sprintf("snapshot%d", n))
		im.Work(t, 8)
	}
	return im
}

// makeBacking makes the chain below the image; it is shorter or longer than the image, or as long.
func (im *Image) makeBacking(t testing.TB, dir string) (name, format string) {
	t.Helper()
	for level := range im.Options.BackingLevels {
		o := Options{Version: 3, ClusterBytes: im.Options.ClusterBytes, RefcountBits: 16, Preallocation: "off"}
		o.SizeBytes = im.Options.SizeBytes + []int64{0, -(im.Options.SizeBytes / 4), 64 << 10}[im.rng.IntN(3)]
		o.SizeBytes &^= 511
		below := &Image{Options: o, Path: filepath.Join(dir, fmt.Sprintf("base%d", level)), rng: im.rng, touched: map[int]bool{}}
		below.Flat = make([]byte, o.SizeBytes)
		args := []string{"create", "-q", "-f", "qcow2"}
		if level == 0 && im.Options.BackingIsRaw {
			args[3] = "raw"
		} else {
			args = append(args, "-o", fmt.Sprintf("cluster_size=%d", o.ClusterBytes))
		}
		if level > 0 {
			args = append(args, "-b", name, "-F", format)
			copy(below.Flat, im.Flat)
		}
		Must(t, dir, "qemu-img", append(args, below.Path, fmt.Sprint(o.SizeBytes))...)
		below.workAs(t, args[3], 10)
		name, format = filepath.Base(below.Path), args[3]
		clear(im.Flat)
		copy(im.Flat, below.Flat)
	}
	return name, format
}

// AddBitmap adds a persistent dirty bitmap.
func (im *Image) AddBitmap(t testing.TB, name string) {
	t.Helper()
	Must(t, filepath.Dir(im.Path), "qemu-img", "bitmap", "--add", "-g", fmt.Sprint(512<<im.rng.IntN(8)), im.Path, name)
	im.Bitmaps = append(im.Bitmaps, name)
}

// TakeSnapshot takes an internal snapshot.
func (im *Image) TakeSnapshot(t testing.TB, name string) {
	t.Helper()
	Must(t, filepath.Dir(im.Path), "qemu-img", "snapshot", "-c", name, im.Path)
	im.Snapshots = append(im.Snapshots, Snapshot{name, append([]byte(nil), im.Flat...)})
}

// Verify fails the test unless QEMU finds the image clean and reads from it, and from its snapshots, what it must.
func (im *Image) Verify(t testing.TB) {
	t.Helper()
	MustBeClean(t, im.Path, false)
	flat := filepath.Join(t.TempDir(), "flat")
	if err := os.WriteFile(flat, im.Flat, 0o600); err != nil {
		t.Fatal(err)
	}
	MustEqual(t, im.Path, "qcow2", flat, "raw")
	for _, s := range im.Snapshots {
		copied := flat + "-" + s.Name
		Must(t, filepath.Dir(im.Path), "qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l", s.Name, im.Path, copied)
		// QEMU reads a snapshot with the size that the disk has now.
		then := make([]byte, len(im.Flat))
		copy(then, s.Flat)
		if err := os.WriteFile(flat, then, 0o600); err != nil {
			t.Fatal(err)
		}
		MustEqual(t, copied, "raw", flat, "raw")
	}
}
