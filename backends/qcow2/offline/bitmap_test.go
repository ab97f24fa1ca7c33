package offline

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: bitmaps are added, removed, cleared, merged, enabled and disabled. Method: each operation is done by us in one copy of an image and by
// qemu-img in another, in turn with work by QEMU; QEMU finds both clean, describes both alike, and tells the same marked parts.
func TestBitmapsOfAnyImage(t *testing.T) {
	for seed := uint64(0); seed < 12; seed += qcowtest.Stride {
		rng := rand.New(rand.NewPCG(seed, 9))
		o := qcowtest.RandomOptions(rng)
		o.Version, o.Bitmaps, o.DataFile, o.DataFileRaw, o.BackingLevels = 3, 2, false, false, 0
		if o.RefcountBits < 8 {
			o.Snapshots = 0
		}
		t.Run(fmt.Sprintf("%d-%s", seed, o), func(t *testing.T) {
			t.Parallel()
			im := qcowtest.Make(t, t.TempDir(), o, seed)
			for n := range 8 {
				changeBitmaps(t, im, rng, n)
				im.Work(t, 4)
				im.Verify(t)
			}
		})
	}
}

func changeBitmaps(t *testing.T, im *qcowtest.Image, rng *rand.Rand, n int) {
	which := im.Bitmaps[rng.IntN(len(im.Bitmaps))]
	other := im.Bitmaps[rng.IntN(len(im.Bitmaps))]
	var args []string
	var do func(*Image) error
	switch rng.IntN(5) {
	case 0:
		name, bits := fmt.Sprintf("ours%d", n), uint(9+rng.IntN(8))
		args, do = []string{"--add", "-g", fmt.Sprint(1 << bits)}, func(i *Image) error { return i.AddBitmap(name, bits) }
		which = name
		im.Bitmaps = append(im.Bitmaps, name)
	case 1:
		args, do = []string{"--clear"}, func(i *Image) error { return i.ClearBitmap(which) }
	case 2:
		args, do = []string{"--disable"}, func(i *Image) error { return i.EnableBitmap(which, false) }
	case 3:
		args, do = []string{"--merge", other}, func(i *Image) error { return i.MergeBitmap(which, i, other) }
	case 4:
		args, do = []string{"--remove"}, func(i *Image) error { return i.RemoveBitmap(which) }
		if len(im.Bitmaps) == 1 {
			return
		}
		for k, name := range im.Bitmaps {
			if name == which {
				im.Bitmaps = append(im.Bitmaps[:k:k], im.Bitmaps[k+1:]...)
				break
			}
		}
	}
	stock := copyOf(t, im.Path)
	qcowtest.Must(t, filepath.Dir(stock), "qemu-img", append(append([]string{"bitmap"}, args...), stock, which)...)
	change(t, im.Path, do)
	qcowtest.MustBeClean(t, im.Path, false)
	describe := func(path string) string {
		_, tail, _ := strings.Cut(qcowtest.Must(t, filepath.Dir(path), "qemu-img", "info", path), "bitmaps:")
		return tail
	}
	if theirs, ours := describe(stock), describe(im.Path); theirs != ours {
		t.Fatalf("%q %s: QEMU has\n%s\nand we\n%s", args, which, theirs, ours)
	}
	for _, name := range im.Bitmaps {
		if theirs, ours := marked(t, stock, name), marked(t, im.Path, name); theirs != ours {
			t.Fatalf("%q %s: in %s QEMU has marked\n%s\nand we\n%s", args, which, name, theirs, ours)
		}
	}
}

// marked is what QEMU's server says of a bitmap.
func marked(t *testing.T, path, name string) string {
	t.Helper()
	cmd := exec.Command("nbdinfo", "--map=qemu:dirty-bitmap:"+name, "--", "[", "qemu-nbd", "-r", "-f", "qcow2", "-B", name, path, "]")
	cmd.Dir = filepath.Dir(path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Goal: bitmaps follow when the disk becomes longer or shorter, and what is marked stays marked where there still is a disk. Method: bitmaps of many
// granularities, some marked as a whole, with tables of one entry and of several; qemu-img resizes a copy in the same way, and both images have the
// same marked, to QEMU.
func TestBitmapsFollowTheSize(t *testing.T) {
	for _, options := range []string{"cluster_size=512", "cluster_size=64k"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "5000k")
			for _, granularity := range []string{"512", "4k", "64k", "1M"} {
				qcowtest.Must(t, dir, "qemu-img", "bitmap", "--add", "-g", granularity, path, "g"+granularity)
			}
			qcowtest.Must(t, dir, "qemu-img", "bitmap", "--add", "--disable", path, "off")
			qcowtest.Must(t, dir, "qemu-io", "-f", "qcow2", "-c", "write 0 5000k", path)
			for _, kib := range []int64{9000, 3001, 3000, 7777, 20, 6000} {
				stock := copyOf(t, path)
				qcowtest.Must(t, dir, "qemu-img", "resize", "--shrink", "-q", "-f", "qcow2", stock, fmt.Sprintf("%dk", kib))
				change(t, path, func(i *Image) error { return i.Resize(ResizeOptions{SizeBytes: kib << 10}) })
				qcowtest.MustBeClean(t, path, false)
				for _, name := range []string{"g512", "g4k", "g64k", "g1M", "off"} {
					if theirs, ours := marked(t, stock, name), marked(t, path, name); theirs != ours {
						t.Fatalf("%d KiB: in %s QEMU has marked\n%s\nand we\n%s", kib, name, theirs, ours)
					}
				}
				qcowtest.Must(t, dir, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write %dk 1k", kib-5), path)
			}
		})
	}
}
