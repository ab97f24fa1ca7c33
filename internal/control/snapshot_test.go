package control

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: an overlay comes to the event loop of the node that it is put above, which has a client there, and goes back when the transaction fails. Method:
// both ways round: the node on an iothread, or the overlay. One that cannot leave the main loop is refused, and nothing has moved.
func TestSnapshotBringsTheOverlay(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "n", "m")
	o.must("object-add", `{"qom-type":"iothread","id":"io"}`)
	o.must("x-blockdev-set-iothread", `{"node-name":"n","iothread":"io","force":true}`)
	io := h.graph.Node("n").Context()
	on := func(name string) *blockcore.AioContext { return h.graph.Node(name).Context() }
	for _, c := range []struct{ node, overlay string }{{"n", "over"}, {"m", "away"}} {
		o.must("blockdev-add", `{"driver":"overlay","node-name":"`+c.overlay+`"}`)
	}
	o.must("x-blockdev-set-iothread", `{"node-name":"away","iothread":"io"}`)
	c := h.client("n")

	_, err := o.ask("transaction", `{"actions":[{"type":"blockdev-snapshot","data":{"node":"n","overlay":"over"}},{"type":"abort","data":{}}]}`)
	require.ErrorContains(t, err, "Abort action")
	require.Same(t, h.main, on("over"))
	o.must("transaction", `{"actions":[{"type":"blockdev-snapshot","data":{"node":"n","overlay":"over"}},
		{"type":"blockdev-snapshot","data":{"node":"m","overlay":"away"}}]}`)
	require.Same(t, io, on("over"))
	require.Same(t, h.main, on("away"))
	c.send()
	c.receive()

	o.must("blockdev-add", `{"driver":"overlay","node-name":"fixed","main-only":true}`)
	o.refused("blockdev-snapshot", `{"node":"over","overlay":"fixed"}`, "its driver runs on the main AioContext only")
	require.Same(t, h.main, on("fixed"))
	require.Same(t, io, on("n"))
}
