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
