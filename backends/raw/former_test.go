package raw

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// waitMax ends a hang.
const waitMax = time.Minute

// failsOn is a kernel that loses what was written through one descriptor, and says so once, to that one.
type failsOn struct {
	kernel

	// Owned by the context.
	fd    int
	syncs map[int]int // by descriptor
}

func (f *failsOn) sync(t *blockcore.Task, fd int) error {
	f.syncs[fd]++
	if fd == f.fd && f.syncs[fd] == 1 {
		return unix.EIO
	}
	return f.kernel.sync(t, fd)
}

// Goal: what was written before a reopen, and is lost, is not forgotten by it: no flush and no FUA write succeeds, be it asked for in the
// section or by the clients after it, and the next reopen forgives. Method: the sync through the old descriptor fails, and that through the new one
// does not; whoever syncs first meets it.
func TestReopenDoesNotHideLostWrites(t *testing.T) {
	first := map[string]func(d *disk) error{
		"flush": func(d *disk) error { return d.ctx.Do(d.f.Flush) },
		"FUA": func(d *disk) error {
			return d.ctx.Do(func(t *blockcore.Task) error {
				p := t.Buffers().Get(512)
				defer t.Buffers().Put(p)
				return d.f.WriteAt(t, p, 0, blockcore.WriteFUA)
			})
		},
	}
	for name, ask := range first {
		for _, inside := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				d := newDisk(t, Options{Path: makeFile(t, t.TempDir(), 64<<10)})
				require.NoError(t, d.fill(0, 4096, 1))
				system := &failsOn{fd: d.f.fd, syncs: map[int]int{}}
				d.f.system = system
				reopened := func(tx *blockcore.Tx, s *blockcore.Drained) error { return tx.Reopen(s, d.node, d.f.options) }
				s, err := d.graph.Drain(t.Context(), blockcore.DrainOptions{All: true})
				require.NoError(t, err)
				require.NoError(t, d.graph.Update(t.Context(), "reopen", func(tx *blockcore.Tx) error { return reopened(tx, s) }))
				require.Empty(t, system.syncs, "clients do not wait for it")
				if inside {
					require.ErrorIs(t, ask(d), unix.EIO)
				}
				s.End()
				require.ErrorIs(t, ask(d), unix.EIO)
				require.ErrorIs(t, ask(d), unix.EIO)
				require.NoError(t, d.change(reopened))
				require.NoError(t, ask(d))
			})
		}
	}
}

// Goal: former openings are given up when clients go on, after one sync through each; a removal that comes at once leaves none. Method: two reopens in
// one section, and the node removed after a while or at once; descriptors are counted.
func TestFormerOpeningsAreGivenUp(t *testing.T) {
	for _, goesOn := range []bool{true, false} {
		path := makeFile(t, t.TempDir(), 64<<10)
		d := newDisk(t, Options{Path: path})
		f := mustOpen(t, Options{Path: path, Locking: imagelock.Off})
		n, err := d.graph.AddNode(blockcore.NodeOptions{Name: "second", Context: d.ctx, Driver: f})
		require.NoError(t, err)
		system := &failsOn{fd: -1, syncs: map[int]int{}}
		f.system = system
		old := f.fd
		s, err := d.graph.Drain(t.Context(), blockcore.DrainOptions{Nodes: []*blockcore.Node{n}})
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, d.graph.Update(t.Context(), "reopen", func(tx *blockcore.Tx) error { return tx.Reopen(s, n, f.options) }))
		}
		require.Equal(t, 5, openDescriptors(t, path))
		if goesOn {
			s.End()
			require.Eventually(t, func() bool { return openDescriptors(t, path) == 3 }, waitMax, waitMax/1000)
			require.NoError(t, d.ctx.Do(func(*blockcore.Task) error {
				require.Equal(t, 1, system.syncs[old])
				require.Len(t, system.syncs, 2)
				return nil
			}))
		} else {
			s.End()
		}
		require.NoError(t, d.graph.RemoveNode(n))
		require.Eventually(t, func() bool { return openDescriptors(t, path) == 2 }, waitMax, waitMax/1000)
	}
}
