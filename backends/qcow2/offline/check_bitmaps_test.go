package offline

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: a repair of all has everything be marked where a bitmap has lost what was marked: its table, or a part of it. Method: the place of a table and an entry of it
// are changed, with refcounts that are good and with ones that have to be built anew; QEMU says what is marked afterwards, in that bitmap and in another one.
func TestLostBitmapsAreMarked(t *testing.T) {
	for name, c := range map[string]struct {
		inTable, noCounts bool
		value             uint64
	}{
		"table behind the end":                    {value: 1 << 30},
		"table behind the end, counts are lost":   {value: 1 << 30, noCounts: true},
		"table far behind the end":                {value: 1<<63 - 1<<16},
		"cluster behind the end":                  {inTable: true, value: 1 << 30},
		"cluster behind the end, counts are lost": {inTable: true, value: 1 << 30, noCounts: true},
		"table just behind the end, counts lost":  {value: 32 << 16, noCounts: true},
		"cluster between two":                     {inTable: true, value: 0x12345},
		"cluster, and a flag for none":            {inTable: true, value: 1<<16 | 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
			qcowtest.Must(t, dir, "qemu-img", "bitmap", "--add", path, "lost")
			qcowtest.Must(t, dir, "qemu-img", "bitmap", "--add", path, "kept")
			qcowtest.Must(t, dir, "qemu-io", "-c", "write 1M 1M", path)
			kept := marked(t, path, "kept")
			im := readBitmapsInFile(t, path)
			p, at := im.bytes, im.directory
			if c.inTable {
				at = im.table(0)
			}
			binary.BigEndian.PutUint64(p[at:], c.value)
			if c.noCounts {
				clear(p[int64(im.header.RefTableOffset):][:8])
			}
			if err := os.WriteFile(path, p, 0o600); err != nil {
				t.Fatal(err)
			}
			before := verdict(t, path, RepairNothing)
			if before.Figures.Corruptions == 0 {
				t.Fatalf("nothing is wrong: %+v", before)
			}
			if v := verdict(t, path, RepairAll); v.Status != 0 || v.Figures.Corruptions != 0 {
				t.Fatalf("not repaired: %+v", v)
			}
			qcowtest.MustBeClean(t, path, false)
			if got := strings.Fields(marked(t, path, "lost")); len(got) != 4 || got[0] != "0" || got[3] != "dirty" {
				t.Errorf("of the lost bitmap is marked: %v", got)
			}
			if got := marked(t, path, "kept"); got != kept {
				t.Errorf("of the other bitmap is marked\n%swas\n%s", got, kept)
			}
		})
	}
}

// bitmapsInFile is an image as bytes, and where it has bitmaps with names of four letters.
type bitmapsInFile struct {
	bytes     []byte
	header    *format.Header
	directory uint64
}

func readBitmapsInFile(t *testing.T, path string) *bitmapsInFile {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := format.Parse(p[:1<<16], format.ForUse)
	if err != nil {
		t.Fatal(err)
	}
	ext, err := format.ParseBitmaps(h.Extension(format.ExtensionBitmaps).Data, h.Geometry())
	if err != nil {
		t.Fatal(err)
	}
	return &bitmapsInFile{p, h, uint64(ext.DirectoryOffset)}
}

// table is where the table of a bitmap is.
func (im *bitmapsInFile) table(index int) uint64 {
	const entryBytes = 32
	return binary.BigEndian.Uint64(im.bytes[im.directory+uint64(index)*entryBytes:])
}

// cluster is what is in a cluster; the last one of a file may be short.
func (im *bitmapsInFile) cluster(at uint64) []byte {
	return im.bytes[at:min(at+1<<16, uint64(len(im.bytes)))]
}

// entry is where the first entry of a table leads that leads anywhere.
func (im *bitmapsInFile) entry(table uint64) uint64 {
	for p := im.bytes[table:]; ; p = p[format.EntryBytes:] {
		if at := binary.BigEndian.Uint64(p) & format.OffsetMask; at != 0 {
			return at
		}
	}
}

// Goal: a repair marks nothing in what is no table of a bitmap, wherever the directory says that it is. Method: the table of a bitmap is said to be where the image has
// something else; after the repair the guest has its data, and the directory, the other bitmap's table and its bits are as they were. QEMU reads the data when it is told that
// bitmaps are not to be looked at.
func TestBitmapRepairKeepsWhatIsNotItsOwn(t *testing.T) {
	const autoclearAt = 95
	for name, place := range map[string]func(im *bitmapsInFile) uint64{
		"header's neighbour":     func(im *bitmapsInFile) uint64 { return uint64(im.header.RefTableOffset) },
		"refcount block":         func(im *bitmapsInFile) uint64 { return im.entry(uint64(im.header.RefTableOffset)) },
		"L1 table":               func(im *bitmapsInFile) uint64 { return uint64(im.header.L1Offset) },
		"L2 table":               func(im *bitmapsInFile) uint64 { return im.entry(uint64(im.header.L1Offset)) },
		"data":                   func(im *bitmapsInFile) uint64 { return im.entry(im.entry(uint64(im.header.L1Offset))) },
		"directory":              func(im *bitmapsInFile) uint64 { return im.directory },
		"another bitmap's table": func(im *bitmapsInFile) uint64 { return im.table(1) },
		"another bitmap's bits":  func(im *bitmapsInFile) uint64 { return im.entry(im.table(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, options := range []string{"refcount_bits=16", "refcount_bits=1"} { // of which the latter cannot count two
				dir := t.TempDir()
				path := filepath.Join(dir, "image")
				qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "64M")
				qcowtest.Must(t, dir, "qemu-img", "bitmap", "--add", path, "lost")
				qcowtest.Must(t, dir, "qemu-img", "bitmap", "--add", path, "kept")
				qcowtest.Must(t, dir, "qemu-io", "-c", "write -P 0x5a 0 1M", path)
				im := readBitmapsInFile(t, path)
				keep := []uint64{im.directory, im.table(1), im.entry(im.table(1))}
				binary.BigEndian.PutUint64(im.bytes[im.directory:], place(im))
				if err := os.WriteFile(path, im.bytes, 0o600); err != nil {
					t.Fatal(err)
				}
				v := verdict(t, path, RepairAll)
				said := v.Said
				rebuilt := strings.Contains(said, "Rebuilding") // refcounts that are anew may have left the place to the table
				if strings.Contains(said, "is something else as well") && !rebuilt && v.Figures.Corruptions == 0 {
					t.Errorf("%s: all is said to be well\n%s", options, said)
				}
				after := readBitmapsInFile(t, path)
				for _, at := range keep {
					if !bytes.Equal(after.cluster(at), im.cluster(at)) {
						t.Errorf("%s: the cluster at %#x has changed\n%s", options, at, said)
					}
				}
				after.bytes[autoclearAt] = 0
				if err := os.WriteFile(path, after.bytes, 0o600); err != nil {
					t.Fatal(err)
				}
				if text := qcowtest.Must(t, dir, "qemu-io", "-r", "-c", "read -P 0x5a 0 1M", path); strings.Contains(text, "fail") {
					t.Errorf("%s: the guest does not have its data\n%s%s", options, text, said)
				}
			}
		})
	}
}
