package qcow2

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: the L1 table of a disk without anything has no clusters; QEMU says of such a table that it is where the header is, which must not be given up with a
// snapshot, nor with the disk when one is applied. Method: disks of no size, with snapshots by qemu-img and by us; they grow and are written to, snapshots are
// applied and deleted, and qemu-img finds neither errors nor leaks.
func TestSnapshotsOfNothing(t *testing.T) {
	for _, by := range []string{"qemu-img", "us"} {
		t.Run(by, func(t *testing.T) {
			path := filepath.Join(scratch(t), "image")
			create(t, path, "0", "cluster_size=4096")
			if by == "qemu-img" {
				tool(t, "qemu-img", "snapshot", "-c", "nothing", path)
			}
			r := open(t, path, Options{})
			if by == "us" {
				require.NoError(t, r.createSnapshot("nothing"))
			}
			fill := func() {
				require.NoError(t, r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
					return tx.Resize(d, n, 1<<20)
				}))
				r.write(0, []byte("something"))
			}
			fill()
			require.NoError(t, r.applySnapshot("nothing"))
			require.Zero(t, r.image.Size())
			fill()
			require.NoError(t, r.deleteSnapshot("nothing"))
			require.Equal(t, "something", string(r.read(0, 9)))
			r.close()
			checkImage(t, path)
		})
	}
}
