package nfs

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// shortMax is the patience of drains that are to fail.
const shortMax = 50 * time.Millisecond

// overlay adds a disk that has nothing yet and can stand above another one.
func (h *house) overlay(name string) *blockcore.Node {
	h.t.Helper()
	n, err := h.graph.AddNode(blockcore.NodeOptions{Name: name, Context: h.root.Context(), Driver: blocktest.NewFake(blocktest.FakeOptions{Name: name, SizeBytes: diskBytes})})
	require.NoError(h.t, err)
	return n
}

// snapshot puts top above the file, for all who use it.
func (h *house) snapshot(top *blockcore.Node, most time.Duration) error {
	return h.graph.Change(context.Background(), blockcore.DrainOptions{Why: "snapshot", Nodes: []*blockcore.Node{h.node, top}, Max: most},
		func(tx *blockcore.Tx, d *blockcore.Drained) error {
			if _, err := tx.Attach(d, top, blockcore.RoleBacking, h.node); err != nil {
				return err
			}
			return tx.Replace(d, h.node, top)
		})
}

// replace has all who use the file use another node.
func (h *house) replace(with *blockcore.Node, most time.Duration) error {
	return h.graph.Change(context.Background(), blockcore.DrainOptions{Why: "replace", Nodes: []*blockcore.Node{h.node}, Max: most},
		func(tx *blockcore.Tx, d *blockcore.Drained) error { return tx.Replace(d, h.node, with) })
}

// refused requires that a change has given up on a write of a guest, with everything as it was.
func (h *house) refused(err error) {
	h.t.Helper()
	var drain *blockcore.DrainError
	require.ErrorAs(h.t, err, &drain)
	require.Len(h.t, drain.Culprits, 1)
	require.Contains(h.t, drain.Culprits[0].String(), "in node d of g")
	require.Equal(h.t, h.node, h.root.Node())
	require.Zero(h.t, h.node.Quiesced())
	require.Zero(h.t, h.root.Quiesced())
}

// Goal: a snapshot above a file whose server is away, and a replacement of it, give up in time, name the request and change nothing; the request goes on. When the server is back, or the
// client is thrown out, they succeed, and those whose drain waits already do at that moment. Method: a silent server with a write in flight; changes with little patience, and with much.
func TestChangesAboveInAnOutage(t *testing.T) {
	for name, end := range map[string]func(h *house){
		"back":       func(h *house) { h.server.Speak() },
		"thrown out": func(h *house) { h.cancel("g") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nfstest.Options{}, nil)
			top, other := h.overlay("top"), h.overlay("other")
			old := random(1, 8192)
			require.NoError(t, h.wait(h.writes("g", 0, old, 0)))
			h.server.Silence()
			writing := h.writes("g", 100000, old, 0)
			h.inFlight(1)
			begin := time.Now()
			h.refused(h.snapshot(top, shortMax))
			h.refused(h.replace(other, shortMax))
			require.Less(t, time.Since(begin), patienceMax/2)
			require.Empty(t, writing)

			changed := make(chan error, 1)
			go func() { changed <- h.snapshot(top, patienceMax) }()
			require.Eventually(t, func() bool { return h.node.Quiesced() > 0 }, patienceMax, time.Millisecond)
			held := h.writes("g2", 0, []byte("above"), 0)
			end(h)
			require.NoError(t, h.wait(changed))
			require.NoError(t, h.wait(held), "what came in the section goes to the overlay")
			if name == "back" {
				require.NoError(t, h.wait(writing))
			} else {
				h.cancelled(writing)
				h.server.Speak()
			}
			require.Equal(t, top, h.root.Node())
			reading, got := h.reads("g2", 0, len(old))
			require.NoError(t, h.wait(reading))
			require.Equal(t, append([]byte("above"), old[5:]...), <-got)
			h.atRest()
			require.NoError(t, h.graph.Update(context.Background(), "flush", func(tx *blockcore.Tx) error { return tx.Flush(h.node) }))
			require.Equal(t, old, h.server.Stable(diskPath)[:len(old)])
		})
	}
}

// Goal: an idle file whose server is away holds up no drain, and is replaced at once; what it still holds is stored when it is back. Method: sections over the file, over
// all, and inside of each other, and a replacement, while the server is silent.
func TestIdleFileInAnOutage(t *testing.T) {
	h := newHouse(t, nfstest.Options{}, nil)
	other := h.overlay("other")
	want := random(2, 30000)
	require.NoError(t, h.wait(h.writes("g", 0, want, 0)))
	h.server.Silence()
	outer, err := h.graph.Drain(context.Background(), blockcore.DrainOptions{All: true, Max: patienceMax})
	require.NoError(t, err)
	inner, err := h.root.Drain(context.Background())
	require.NoError(t, err)
	held, got := h.reads("g", 0, len(want))
	outer.End()
	require.Empty(t, held)
	inner.End()
	require.NoError(t, h.wait(held), "it is held here")
	require.True(t, bytes.Equal(want, <-got))
	require.NoError(t, h.replace(other, patienceMax))
	require.NoError(t, h.wait(h.writes("g", 0, []byte("elsewhere"), 0)))
	h.server.Speak()
	require.NoError(t, h.graph.RemoveNode(h.node))
	require.Equal(t, want, h.server.Stable(diskPath)[:len(want)])
}

// Goal: somebody who leaves in a section that waits for him lets it go on, and what he has asked for and was held back by it is not executed when he is unwanted. Method: a drain that waits for a write of
// one guest while a request of his is held, and another one of a guest who stays.
func TestClientLeavesASectionThatWaits(t *testing.T) {
	h := newHouse(t, nfstest.Options{}, nil)
	h.server.Silence()
	writing := h.writes("leaves", 0, random(1, 5000), 0)
	h.inFlight(1)
	drained := make(chan error, 1)
	var d *blockcore.Drained
	go func() {
		var err error
		d, err = h.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "test", Nodes: []*blockcore.Node{h.node}, Max: patienceMax})
		drained <- err
	}()
	require.Eventually(t, func() bool { return h.look(h.root.Still) }, patienceMax, time.Millisecond)
	held, stays := h.writes("leaves", 0, random(2, 5000), 0), h.flushes("stays")
	h.cancel("leaves")
	h.cancelled(writing)
	require.NoError(t, h.wait(drained))
	require.Empty(t, held)
	require.Zero(t, h.node.InFlight())
	d.End()
	h.cancelled(held)
	require.NoError(t, h.wait(stays), "there is nothing to flush")
	h.server.Speak()
	h.atRest()
}
