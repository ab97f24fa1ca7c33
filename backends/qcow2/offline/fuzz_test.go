package offline

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

var rewrite = flag.Bool("rewrite", false, "make the images and corpora of the fuzz tests anew")

const (
	imageFiles = "testdata/images"
	corpus     = "testdata/fuzz/FuzzCheck"
	images     = 8
	// patchBytes is one change of an image: which word, and what to put there.
	patchBytes = 2 + 8
)

// Goal: the corpus holds changes of small images of each kind. Method: with -rewrite they are made by qemu-img; otherwise only that there
// are some is looked at.
func TestCorpusOfCheck(t *testing.T) {
	if *rewrite {
		writeCorpus(t)
	}
	entries, err := os.ReadDir(corpus)
	if err != nil || len(entries) < images {
		t.Errorf("%d entries, %v; run it with -rewrite", len(entries), err)
	}
}

func writeCorpus(t *testing.T) {
	for _, dir := range []string{corpus, imageFiles} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for n := range images {
		rng := rand.New(rand.NewPCG(uint64(n), 5))
		o := qcowtest.RandomOptions(rng)
		o.ClusterBytes, o.ExtendedL2, o.Preallocation, o.SizeBytes = 512, false, "off", 12<<10
		o.RefcountBits, o.Snapshots, o.Bitmaps, o.CompressedWork = max(o.RefcountBits, 8), n%3, n%2, n%4 < 2
		o.DataFile, o.DataFileRaw, o.BackingLevels = false, false, 0
		if o.Version == 2 {
			o.Bitmaps = 0
		}
		im := qcowtest.Make(t, t.TempDir(), o, uint64(n))
		whole, err := os.ReadFile(im.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(imageFiles, fmt.Sprintf("%d.qcow2", n)), whole, 0o644); err != nil {
			t.Fatal(err)
		}
		for k := range 6 {
			var patches []byte
			for _, p := range qcowtest.RandomDamage(t, im.Path, rng) {
				patches = binary.BigEndian.AppendUint16(patches, uint16(p.Offset/8))
				patches = append(patches, p.Bytes...)
			}
			text := fmt.Sprintf("go test fuzz v1\nbyte('\\x%02x')\n[]byte(%s)\nbyte('\\x%02x')\nbyte('\\x%02x')\n", n, strconv.QuoteToASCII(string(patches)), 20*(k%2), k%3)
			if err := os.WriteFile(filepath.Join(corpus, fmt.Sprintf("image-%d-%d", n, k)), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Goal: no image makes a check crash, run on or fill the memory, and a repair that claims success is one. Method: images with changed words,
// some in files that are mostly a hole, are checked and repaired; after a repair the next check must agree that nothing is left.
func FuzzCheck(f *testing.F) {
	base := make([][]byte, images)
	for n := range base {
		var err error
		if base[n], err = os.ReadFile(filepath.Join(imageFiles, fmt.Sprintf("%d.qcow2", n))); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, image byte, patches []byte, holeBits, repair byte) {
		data := append([]byte(nil), base[image%images]...)
		for ; len(patches) >= patchBytes; patches = patches[patchBytes:] {
			at := int(binary.BigEndian.Uint16(patches)) * 8 % (len(data) &^ 7)
			copy(data[at:at+8], patches[2:patchBytes])
		}
		file := &memory{data: data, sizeBytes: max(int64(len(data)), 1<<min(holeBits, 62)-1)}
		checkAndTrust(t, file, Repair(repair%3))
	})
}

// Goal: nothing that begins like an image makes opening or checking it crash. Method: arbitrary bytes.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(format.Magic + "\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkAndTrust(t, &memory{data: data, sizeBytes: int64(len(data))}, RepairAll)
		if im, err := Open(&memory{data: data, sizeBytes: int64(len(data))}, format.ForUse); err == nil {
			_, _ = im.Bitmaps()
		}
	})
}

func checkAndTrust(t *testing.T, file *memory, repair Repair) {
	report, err := checkMemory(file, repair)
	if err != nil || repair != RepairAll || !report.Clean() {
		return
	}
	again, err := checkMemory(file, RepairNothing)
	if err != nil || !again.Clean() {
		t.Errorf("after a repair with\n%+v\nthe check says\n%+v, %v", report, again, err)
	}
}

func checkMemory(file *memory, repair Repair) (Report, error) {
	im, err := Open(file, format.ForCheck)
	if err != nil {
		return Report{}, err
	}
	return im.Check(CheckOptions{Repair: repair})
}
