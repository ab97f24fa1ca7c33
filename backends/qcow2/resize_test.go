package qcow2

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// stiff is a disk that does not become shorter.
type stiff struct{ *memory }

func (s stiff) Resize(*blockcore.Task, int64) error { return syscall.EIO }

// Goal: what was cut off is never seen again, also where the file could not be cut off with it. Method: the last cluster of a disk is written, and the disk
// shrunk; a few bytes elsewhere get the same place in the file, with zeroes around them.
func TestShrinkOfAFileThatStays(t *testing.T) {
	base, err := os.ReadFile(create(t, filepath.Join(scratch(t), "image"), "1M", ""))
	require.NoError(t, err)
	s := stiff{&memory{bytes: base, random: rand.New(rand.NewPCG(1, 2)), h: &history{}}}
	r := newRig(t)
	file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "stiff", Context: r.ctx, Driver: s})
	require.NoError(t, err)
	n, err := put(r.graph, "image", file, Options{})
	require.NoError(t, err)
	r.use(n)
	secret := make([]byte, 64<<10)
	for k := range secret {
		secret[k] = 0xaa
	}
	r.write(960<<10, secret)
	require.NoError(t, r.do(func(t *blockcore.Task, _ *blockcore.Edge) error { return r.image.Resize(t, 512<<10) }))
	r.write(4096, secret[:512])
	got := r.read(0, 64<<10)
	requireSame(t, secret[:512], got[4096:4608], "what was written")
	clear(got[4096:4608])
	requireSame(t, make([]byte, 64<<10), got, "what is around it")
}
