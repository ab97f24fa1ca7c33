package offline

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: snapshot tables that cannot be are put right by a repair of all, in one go, also where QEMU 7.2 fails or has to be asked twice; and an image whose
// table is said to be behind the end of the file can be given another snapshot. Method: numbers in the header and in the first entry are changed; qemu-img checks
// what is left.
func TestSnapshotTablesAreMended(t *testing.T) {
	const count, place = 60, 64 // in the header
	for name, c := range map[string]struct {
		at    int64 // in the header, or behind it in the first entry
		bytes int
		value uint64
		use   bool // it can be used as well
	}{
		"one too many":              {at: count, bytes: 4, value: 65537},
		"as many as there can be":   {at: count, bytes: 4, value: 65536},
		"as many as can be written": {at: count, bytes: 4, value: 0xffffffff},
		"behind the end":            {at: place, bytes: 8, value: 1 << 30, use: true},
		"far behind the end":        {at: place, bytes: 8, value: 7 << 60, use: true},
		"too much extra data":       {at: 1<<20 + 36, bytes: 4, value: 2000},
		"extra data is missing":     {at: 1<<20 + 36, bytes: 4, value: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "1M")
			qcowtest.Must(t, dir, "qemu-io", "-c", "write 0 64k", path)
			qcowtest.Must(t, dir, "qemu-img", "snapshot", "-c", "one", path)
			qcowtest.Must(t, dir, "qemu-img", "snapshot", "-c", "two", path)
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			at := c.at
			if entry := at - 1<<20; entry >= 0 {
				at = int64(binary.BigEndian.Uint64(p[place:])) + entry
			}
			if c.bytes == 4 {
				binary.BigEndian.PutUint32(p[at:], uint32(c.value))
			} else {
				binary.BigEndian.PutUint64(p[at:], c.value)
			}
			if err := os.WriteFile(path, p, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.use {
				change(t, path, func(i *Image) error { return i.CreateSnapshot("three", time.Unix(1e9, 0)) })
				qcowtest.MustBeClean(t, path, true)
				if err := os.WriteFile(path, p, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if v := verdict(t, path, RepairAll); v.Status != 0 {
				t.Errorf("a repair says %d:\n%s", v.Status, v.Said)
			}
			qcowtest.MustBeClean(t, path, false)
		})
	}
}
