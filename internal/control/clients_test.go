package control

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clients are what x-query-clients lists.
func (o *operator) clients() (all []map[string]any) {
	for _, c := range o.must("x-query-clients", "").([]any) {
		all = append(all, c.(map[string]any))
	}
	return all
}

// Goal: a client that is cut off does not wait for the limits of its export, nor is what it has asked executed. Method: a group that lets one request run a
// minute; of ten requests the first is answered, the client is thrown out, or its export removed by force; the seats are free at once.
func TestCutOffUnderLimits(t *testing.T) {
	for _, command := range []string{"x-client-disconnect", "block-export-del"} {
		h := newHouse(t)
		o := h.monitor()
		h.serve(o)
		o.must("object-add", `{"qom-type":"throttle-group","id":"g","limits":{"iops-total":1,"iops-total-max":1,"iops-total-max-length":1,"iops-size":16}}`)
		o.must("blockdev-add", `{"driver":"gate","node-name":"n"}`)
		o.must("block-export-add", `{"type":"nbd","id":"n","node-name":"n","x-throttle-group":"g"}`)
		gate := h.gate("n")
		c := h.client("n")
		for range 10 {
			c.send()
		}
		c.receive()
		require.Eventually(t, func() bool { // all are taken from the socket: who is cut off before is told of a reset
			all := o.clients()
			return len(all) == 1 && all[0]["in-flight"].(float64) == 9
		}, patience, time.Millisecond)
		other := h.client("n")
		require.Eventually(t, func() bool { return len(o.clients()) == 2 }, patience, time.Millisecond)
		arguments := `{"id":"n","mode":"hard"}`
		if command == "x-client-disconnect" {
			arguments = fmt.Sprintf(`{"id":%v}`, o.clients()[0]["id"])
		}
		o.must(command, arguments)
		_, err := io.Copy(io.Discard, c.conn)
		require.NoError(t, err)
		o.await("X_CLIENT_DISCONNECTED")
		if command == "x-client-disconnect" {
			require.Len(t, o.clients(), 1)
			other.conn.Close()
			o.await("X_CLIENT_DISCONNECTED")
			o.must("block-export-del", `{"id":"n"}`)
		}
		o.await("BLOCK_EXPORT_DELETED")
		require.EqualValues(t, 1, gate.reads.Load())
	}
}

// Goal: what a section has held back is not executed at the end of the process, nor answered, and monitors hear of the end before they are closed.
// Method: a lease holds an export with a request; the plane is closed; the disk has seen nothing, the client an end of file, the monitor the events.
func TestTheEndExecutesNothingThatWasHeld(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "n")
	gate := h.gate("n")
	c := h.client("n")
	o.must("x-drain-begin", `{"exports":["n"],"lease":600}`)
	c.send()
	require.Eventually(t, func() bool { all := o.clients(); return len(all) == 1 && all[0]["held"].(bool) }, patience, time.Millisecond)
	require.NoError(t, h.plane.Close())
	n, err := io.Copy(io.Discard, c.conn)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Zero(t, gate.reads.Load())
	var heard []string // in no certain order
	for e := range o.Events() {
		heard = append(heard, e.Name)
	}
	require.Subset(t, heard, []string{"X_DRAIN_ENDED", "BLOCK_EXPORT_DELETED"})
}
