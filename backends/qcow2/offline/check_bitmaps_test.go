package offline

import (
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
			at := int64(ext.DirectoryOffset)
			if c.inTable {
				at = int64(binary.BigEndian.Uint64(p[at:]))
			}
			binary.BigEndian.PutUint64(p[at:], c.value)
			if c.noCounts {
				clear(p[int64(h.RefTableOffset):][:8])
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
