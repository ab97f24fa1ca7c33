package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// Goal: an iothread on which a node is still being closed that was removed is refused to be deleted, at once, with the name of the node. Method: a disk that
// does not come to its end is removed; it does, and the iothread goes.
func TestIOThreadStaysUntilItsDriversAreClosed(t *testing.T) {
	h := newHouse(t)
	o, other := h.monitor(), h.monitor()
	o.must("object-add", `{"qom-type":"iothread","id":"io"}`)
	o.must("blockdev-add", `{"driver":"gate","node-name":"n"}`)
	o.must("x-blockdev-set-iothread", `{"node-name":"n","iothread":"io"}`)
	open := sync.OnceFunc(h.gate("n").close())
	defer open()
	removed := make(chan error, 1)
	go func() {
		_, err := other.ask("blockdev-del", `{"node-name":"n"}`)
		removed <- err
	}()
	require.Eventually(t, func() bool { return len(h.graph.Leaving()) == 1 }, patience, time.Millisecond)
	err := o.refused("object-del", `{"id":"io"}`, "object 'io' is in use, can not be deleted")
	failed, ok := errors.AsType[*qmp.Detailed](err)
	require.True(t, ok)
	require.Contains(t, fmt.Sprintf("%s", failed.Detail), "node n was removed and is not closed yet")
	open()
	require.NoError(t, <-removed)
	require.Empty(t, h.graph.Leaving())
	o.must("object-del", `{"id":"io"}`)
}

// Goal: an iothread stays while a node that has left it may come back. Method: a change moves the node away, asks for object-del in the middle, which
// must not get its turn, and fails; the node is back, and the iothread in use. Once it has moved for good the iothread goes.
func TestIOThreadStaysForAMoveThatIsUndone(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	o.must("object-add", `{"qom-type":"iothread","id":"io"}`)
	o.must("blockdev-add", `{"driver":"null-co","node-name":"n"}`)
	o.must("x-blockdev-set-iothread", `{"node-name":"n","iothread":"io"}`)
	n := h.graph.Node("n")
	io := n.Context()
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	failed := errors.New("changed its mind")
	err := h.plane.during(t.Context(), h.plane.drainOptions("test", n), func(tx *blockcore.Tx, d *blockcore.Drained) error {
		require.NoError(t, tx.SetContext(d, n, h.main))
		_, err := h.plane.objectDel(impatient, nil, &idArgs{ID: "io"})
		require.ErrorContains(t, err, "waiting for another change of the graph")
		return failed
	})
	require.ErrorIs(t, err, failed)
	require.Same(t, io, n.Context())
	o.refused("object-del", `{"id":"io"}`, "object 'io' is in use, can not be deleted")
	o.must("x-blockdev-set-iothread", `{"node-name":"n","iothread":null}`)
	o.must("object-del", `{"id":"io"}`)
}
