package qcow2

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Goal: the header doubts counts from when a snapshot is expected until it is taken, or is not after all; and a doubt that nobody took back goes with the image.
// Method: the header is read from the file after each step, in an image that allocates meanwhile; qemu-img finds no error in it.
func TestExpectedSnapshots(t *testing.T) {
	for _, options := range []string{"", "lazy_refcounts=on", "compat=0.10"} {
		t.Run(options, func(t *testing.T) {
			path := create(t, filepath.Join(scratch(t), "image"), "4M", options)
			r := open(t, path, Options{})
			doubts := func() bool {
				p, err := os.ReadFile(path)
				require.NoError(t, err)
				h, err := format.Parse(p[:64<<10], format.ForUse)
				require.NoError(t, err)
				return h.Has(format.IncompatibleDirty)
			}
			expect := func(expected bool) { r.root.Node().ExpectSnapshot(t.Context(), expected) }
			data := make([]byte, 4096)
			data[0] = 1
			plain := options == ""
			expect(true)
			require.Equal(t, options != "compat=0.10", doubts(), "expected")
			r.write(0, data)
			expect(false)
			require.Equal(t, options == "lazy_refcounts=on", doubts(), "not after all")
			r.write(1<<20, data)
			expect(true)
			r.write(2<<20, data)
			require.NoError(t, r.createSnapshot("one"))
			require.False(t, doubts(), "taken")
			r.write(2<<20+4096, data)
			require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) }))
			require.False(t, plain && doubts(), "written after")
			require.NoError(t, r.createSnapshot("two"))
			expect(true)
			r.close()
			require.False(t, doubts(), "closed")
			checkImage(t, path)
		})
	}
}
