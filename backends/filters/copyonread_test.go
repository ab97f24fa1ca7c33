package filters

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// copyRig is a copy-on-read filter on a fake disk that is on top of another one full of 0xbb.
type copyRig struct {
	*rig
	over *blocktest.Fake
	past *rig // another owner, of the overlay itself
}

func newCopyRig(t *testing.T) *copyRig {
	t.Helper()
	return newCopyRigOf(t, blockcore.Limits{})
}

// newCopyRigOf has an overlay with such limits.
func newCopyRigOf(t *testing.T, limits blockcore.Limits) *copyRig {
	t.Helper()
	r := &rig{t: t, ctx: blocktest.NewContext(t, blockcore.EngineThreads), graph: blockcore.NewGraph()}
	r.fake = blocktest.NewFake(blocktest.FakeOptions{Name: "base", SizeBytes: 32 << 10})
	base, err := r.graph.AddNode(blockcore.NodeOptions{Name: "base", Context: r.ctx, Driver: r.fake})
	require.NoError(t, err)
	r.own(base)
	require.NoError(t, <-r.startWrite(0, bytes.Repeat([]byte{0xbb}, 16<<10)))
	r.root.Close()
	r.disk = overlayOf(t, r.graph, base, blocktest.FakeOptions{SizeBytes: 64 << 10, Limits: limits})
	r.top = put(t, r.graph, "top", NewCopyOnRead(), r.disk)
	r.own(r.top)
	past := *r
	past.own(r.disk)
	return &copyRig{r, r.disk.Driver().(*blocktest.Fake), &past}
}

// own returns how many bytes of a range are allocated in the overlay.
func (r *copyRig) allocated(at blockcore.Range) int64 {
	r.t.Helper()
	var own int64
	require.NoError(r.t, <-r.start("status", at, func(t *blockcore.Task, e *blockcore.Edge) error {
		for rest := at; rest.Length > 0; {
			exts, err := e.BlockStatus(t, rest, nil, 99)
			if err != nil {
				return err
			}
			for _, x := range exts {
				if x.Depth == 1 {
					own += x.Length
				}
				rest = blockcore.Range{Offset: rest.Offset + x.Length, Length: rest.Length - x.Length}
			}
		}
		return nil
	}))
	return own
}

// Goal: what is read from below, data, zeroes and nothing at all, is the overlay's own afterwards and the same, and is copied
// once; a prefetch does the same without data. Method: reads over the borders, the map before and after.
func TestCopyOnReadCopies(t *testing.T) {
	r := newCopyRig(t)
	require.Zero(t, r.allocated(blockcore.Range{Length: 64 << 10}))
	want := append(bytes.Repeat([]byte{0xbb}, 4096), make([]byte, 4096)...)
	for range 2 {
		require.Equal(t, want, r.read(12<<10, 8192)) // data, and zeroes of the base
		require.Equal(t, int64(8192), r.allocated(blockcore.Range{Length: 64 << 10}))
	}
	require.Equal(t, make([]byte, 8192), r.read(28<<10, 8192)) // zeroes of the base, and nothing behind its end
	require.Equal(t, int64(16384), r.allocated(blockcore.Range{Length: 64 << 10}))
	prefetched := blockcore.Range{Offset: 0, Length: 8192}
	require.NoError(t, <-r.start("prefetch", prefetched, func(t *blockcore.Task, e *blockcore.Edge) error { return e.Prefetch(t, prefetched) }))
	require.Equal(t, prefetched.Length, r.allocated(prefetched))
	require.Equal(t, want[:4096], r.over.Contents(blockcore.Range{Length: 4096}))
	r.requireStill()
}

// eachWay runs a test for each kind of change, made through the filter and past it, on overlays with and without an alignment.
func eachWay(t *testing.T, test func(t *testing.T, r *copyRig, by *rig, op string)) {
	for _, align := range []int64{1, 4096} {
		for _, past := range []bool{false, true} {
			for _, op := range []string{"write", "zero", "discard"} {
				t.Run(fmt.Sprintf("%s/align=%d/past=%t", op, align, past), func(t *testing.T) {
					r := newCopyRigOf(t, blockcore.Limits{Align: align})
					by := r.rig
					if past {
						by = r.past
					}
					test(t, r, by, op)
					r.past.requireStill()
					r.requireStill()
				})
			}
		}
	}
}

// startChange makes a range something else than what is below.
func (r *rig) startChange(op string, at blockcore.Range) <-chan error {
	return r.start(op, at, func(t *blockcore.Task, e *blockcore.Edge) error {
		switch op {
		case "zero":
			return e.WriteZeroes(t, at, 0)
		case "discard":
			return e.Discard(t, at, false)
		}
		p := t.Buffers().Get(int(at.Length))
		defer t.Buffers().Put(p)
		for i := range p {
			p[i] = 7
		}
		return e.Write(t, p, at.Offset, 0)
	})
}

// changed is what a range holds after startChange.
func changed(op string, at blockcore.Range) []byte {
	if op == "write" {
		return bytes.Repeat([]byte{7}, int(at.Length))
	}
	return make([]byte, at.Length)
}

// Goal: old data from below never comes over new data, whichever way that comes; method: the writing back is held, a write, a zeroing and a
// discard of the same place come, and a write beside it, which goes on; then it is let go.
func TestCopyOnReadNeverUndoesAWrite(t *testing.T) {
	eachWay(t, func(t *testing.T, r *copyRig, by *rig, op string) {
		gate := blocktest.NewGate()
		defer gate.Open()
		r.over.Add(blocktest.Rule{Op: blocktest.OpWrite, Times: 1, Gate: gate})
		at := blockcore.Range{Offset: 4096, Length: 4096}
		read := r.startRead(at.Offset, at.Length)
		gate.WaitHeld(1)
		again := r.startRead(at.Offset+512, 512)
		change := by.startChange(op, at)
		require.NoError(t, <-by.startWrite(at.End(), []byte{9}), "what is beside goes on")
		by.progress()
		select {
		case <-change:
			t.Fatal("a change passed what is written back")
		default:
		}
		gate.Open()
		for _, done := range []<-chan error{read, again, change} {
			require.NoError(t, <-done)
		}
		require.Equal(t, changed(op, at), r.read(at.Offset, at.Length))
	})
}

// Goal: nothing is written back over a change that was under way when the read came. Method: the change is held where it is stored, the read
// comes, and what it would write back is held until the change has been acknowledged.
func TestCopyOnReadWaitsForChangesUnderWay(t *testing.T) {
	eachWay(t, func(t *testing.T, r *copyRig, by *rig, op string) {
		storing, back := blocktest.NewGate(), blocktest.NewGate()
		defer storing.Open()
		defer back.Open()
		kinds := map[string]blocktest.Op{"write": blocktest.OpWrite, "zero": blocktest.OpZero, "discard": blocktest.OpDiscard}
		r.over.Add(blocktest.Rule{Op: kinds[op], Times: 1, Gate: storing})
		r.over.Add(blocktest.Rule{Op: blocktest.OpWrite, Times: 1, Gate: back})
		at := blockcore.Range{Offset: 4096, Length: 4096}
		change := by.startChange(op, at)
		storing.WaitHeld(1)
		read := r.startRead(at.Offset, at.Length)
		r.progress()
		require.Zero(t, back.Held())
		storing.Open()
		require.NoError(t, <-change)
		back.Open()
		require.NoError(t, <-read)
		require.Equal(t, changed(op, at), r.read(at.Offset, at.Length))
	})
}

// Goal: an error of writing back is one of the read, and leaves nothing behind; method: the overlay is full once.
func TestCopyOnReadTellsErrors(t *testing.T) {
	r := newCopyRig(t)
	r.over.Add(blocktest.Rule{Op: blocktest.OpWrite, Times: 1, Err: syscall.ENOSPC})
	require.ErrorIs(t, <-r.startRead(0, 4096), syscall.ENOSPC)
	require.NoError(t, <-r.startRead(0, 4096))
	r.over.Add(blocktest.Rule{Op: blocktest.OpStatus, Times: 1, Err: syscall.EIO})
	require.ErrorIs(t, <-r.startRead(8192, 4096), syscall.EIO)
	r.requireStill()
}

// Goal: only who may write can be copied to; reading owners are enough. Method: an overlay that is read-only, and one with a
// reading owner.
func TestCopyOnReadPermissions(t *testing.T) {
	r := newCopyRig(t)
	r.root.Close()
	var err error
	r.root, err = r.graph.NewRoot(r.top, blockcore.RootOptions{Name: "reader"})
	require.NoError(t, err)
	require.Equal(t, byte(0xbb), r.read(0, 4096)[0])
	require.Equal(t, int64(4096), r.allocated(blockcore.Range{Length: 8192}))
	ro, err := r.graph.AddNode(blockcore.NodeOptions{
		Name: "ro", Context: r.ctx, Driver: blocktest.NewFake(blocktest.FakeOptions{Features: blockcore.Features{ReadOnly: true}}),
	})
	require.NoError(t, err)
	_, err = r.graph.AddNode(blockcore.NodeOptions{
		Name: "refused", Driver: NewCopyOnRead(), Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: ro}},
	})
	require.ErrorContains(t, err, "Block node is read-only")
}

// Goal: requests on ranges that overlap in every way never wait for each other for ever, and their order does not show; method: many
// at once, random, through the filter and past it, with random delays below, and each sector holds what the base or one of the writes put there.
func TestCopyOnReadNeverDeadlocks(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newCopyRig(t)
	for range 3 {
		r.over.Add(blocktest.Rule{Op: blocktest.OpAny, Skip: rng.IntN(50), Times: 50, Delay: time.Duration(rng.IntN(300)) * time.Microsecond})
	}
	var all []<-chan error
	for range 400 {
		off := rng.Int64N(15<<10) &^ 511
		n := min(512+rng.Int64N(8192)&^511, 16<<10-off)
		if rng.IntN(2) == 0 {
			all = append(all, r.startRead(off, n))
		} else {
			by := []*rig{r.rig, r.past}[rng.IntN(2)]
			all = append(all, by.startWrite(off, bytes.Repeat([]byte{byte(1 + rng.IntN(100))}, int(n))))
		}
	}
	for _, done := range all {
		require.NoError(t, <-done, "seed %d", seed)
	}
	got := r.read(0, 16<<10)
	for at := 0; at < len(got); at += 512 {
		sector := got[at : at+512]
		require.Equal(t, bytes.Repeat(sector[:1], 512), sector, "sector at %#x, seed %d", at, seed)
		require.True(t, sector[0] == 0xbb || sector[0] >= 1 && sector[0] <= 100, "sector at %#x, seed %d", at, seed)
	}
	d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{All: true})
	require.NoError(t, err)
	d.End()
	r.requireStill()
}
