package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/qmp"
)

// begin holds exports still and returns the id of the section.
func (o *operator) begin(arguments string) string {
	o.t.Helper()
	return o.must("x-drain-begin", arguments).(map[string]any)["id"].(string)
}

// ended returns why a lease has ended, as the next event tells.
func (o *operator) ended(id string) string {
	o.t.Helper()
	var data struct{ ID, Reason string }
	require.NoError(o.t, json.Unmarshal(o.await("X_DRAIN_ENDED").Data, &data))
	require.Equal(o.t, id, data.ID)
	return data.Reason
}

// nothingDrained waits until no section is left: one is listed until the loops go on.
func (o *operator) nothingDrained() {
	o.t.Helper()
	require.Eventually(o.t, func() bool { return len(o.must("x-query-drains", "").([]any)) == 0 }, patience, time.Millisecond)
}

// Goal: clients of exports that are held still see nothing but latency, whichever way the section ends. Method: two exports are held
// together; the requests of their clients stay unanswered until the end, then both are answered; what was written is flushed before.
func TestLeaseHoldsExportsStill(t *testing.T) {
	h := newHouse(t)
	watcher, o := h.monitor(), h.monitor()
	h.serve(o, "a", "b")
	a, b := h.client("a"), h.client("b")
	for _, end := range []struct {
		reason string
		lease  int
		do     func(id string)
	}{
		{"ended", 60, func(id string) { o.must("x-drain-end", fmt.Sprintf(`{"id":%q}`, id)) }},
		{"lease expired", 1, func(string) {}},
		{"monitor closed", 60, func(string) { o.Close() }},
	} {
		flushes := h.gate("a").flushes.Load()
		id := o.begin(fmt.Sprintf(`{"exports":["a","b"],"lease":%d}`, end.lease))
		require.Greater(t, h.gate("a").flushes.Load(), flushes)
		a.send()
		b.send()
		a.silent()
		b.silent()
		drains := watcher.must("x-query-drains", "").([]any)
		require.Len(t, drains, 1)
		require.Equal(t, id, drains[0].(map[string]any)["id"])
		end.do(id)
		require.Equal(t, end.reason, watcher.ended(id))
		a.receive()
		b.receive()
		watcher.nothingDrained()
		watcher.refused("x-drain-end", fmt.Sprintf(`{"id":%q}`, id), "There is no drained section")
		watcher.refused("x-drain-renew", fmt.Sprintf(`{"id":%q,"lease":5}`, id), "There is no drained section")
	}
}

// Goal: monitors are not told that the graph has changed where data was flushed and nothing else. Method: the events of a section that flushes, up to
// its end.
func TestLeaseIsNoChange(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	for len(o.Events()) > 0 {
		<-o.Events()
	}
	flushes := h.gate("a").flushes.Load()
	id := o.begin(`{"exports":["a"],"lease":60}`)
	require.Greater(t, h.gate("a").flushes.Load(), flushes)
	o.must("x-drain-end", fmt.Sprintf(`{"id":%q}`, id))
	for {
		e := <-o.Events()
		require.NotEqual(t, "X_GRAPH_CHANGED", e.Name)
		if e.Name == "X_DRAIN_ENDED" {
			return
		}
	}
}

// Goal: the end of the program ends leases. Method: the plane is closed under one, with a request waiting.
func TestLeaseEndsWithThePlane(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	a := h.client("a")
	o.begin(`{"exports":["a"],"lease":60}`)
	a.send()
	require.NoError(t, h.plane.Close())
	h.empty()
}

// Goal: a lease can be made longer. Method: one of a second is renewed for a minute; it is there with more than a second to go, and stays when
// its old time comes all the same.
func TestLeaseIsRenewed(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	id := o.begin(`{"exports":["a"],"lease":1}`)
	o.must("x-drain-renew", fmt.Sprintf(`{"id":%q,"lease":60}`, id))
	drain := o.must("x-query-drains", "").([]any)[0].(map[string]any)
	require.Greater(t, drain["lease-ms"], 50_000.0)
	h.plane.expire(h.plane.leasesNow()[0]) // its timer had fired in the moment before
	o.must("x-drain-end", fmt.Sprintf(`{"id":%q}`, id))
}

// Goal: a section that cannot come to be holds nothing, and says who is to blame. Method: a disk that does not answer.
func TestLeaseOnAStuckDisk(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a", "b")
	open := h.gate("a").close()
	a, b := h.client("a"), h.client("b")
	a.send()
	require.Eventually(t, func() bool { return h.graph.Node("a").InFlight() == 1 }, patience, time.Millisecond)
	err := o.refused("x-drain-begin", `{"exports":["a","b"],"lease":60,"timeout":1}`, "")
	detailed, ok := errors.AsType[*qmp.Detailed](err)
	require.True(t, ok, "%v", err)
	var d struct {
		Reason   string
		Culprits []struct{ Node, Op string }
	}
	require.NoError(t, json.Unmarshal(detailed.Detail.(json.RawMessage), &d))
	require.Equal(t, "drain-timeout", d.Reason)
	require.NotEmpty(t, d.Culprits)
	o.nothingDrained()
	b.send()
	b.receive()
	open()
	a.receive()
	o.must("x-drain-end", fmt.Sprintf(`{"id":%q}`, o.begin(`{"exports":["a"],"lease":60}`)))
}

// Goal: mistakes are told, and hold nothing. Method: a table; nothing is still afterwards.
func TestLeaseRefuses(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	for arguments, want := range map[string]string{
		`{"exports":["a"],"lease":0}`:                    "Parameter 'lease' expects",
		`{"exports":["a"],"lease":3601}`:                 "Parameter 'lease' expects",
		`{"exports":["a"]}`:                              "Parameter 'lease' is missing",
		`{"exports":["a"],"lease":5,"timeout":0}`:        "Parameter 'timeout' expects",
		`{"exports":["a"],"lease":5,"timeout":3601}`:     "Parameter 'timeout' expects",
		`{"lease":5}`:                                    "Parameter 'exports' is missing",
		`{"exports":[],"lease":5}`:                       "Parameter 'exports' is missing",
		`{"exports":["nope"],"lease":5}`:                 "Export 'nope' is not found",
		`{"exports":["a"],"nodes":["nope"],"lease":5}`:   "node-name='nope'",
		`{"exports":["a"],"lease":5,"bogus":1}`:          "Parameter 'bogus' is unexpected",
		`{"exports":["a"],"lease":9223372036854775807}`:  "Parameter 'lease' expects",
		`{"exports":["a"],"lease":-9223372036854775808}`: "Parameter 'lease' expects",
	} {
		o.refused("x-drain-begin", arguments, want)
	}
	require.Empty(t, o.must("x-query-drains", ""))
	for range leasesMax {
		o.begin(`{"exports":["a","a"],"nodes":["a"],"lease":600}`)
	}
	o.refused("x-drain-begin", `{"exports":["a"],"lease":600}`, "held already")
	require.Len(t, o.must("x-query-drains", ""), leasesMax)
	o.Close()
	watcher := h.monitor()
	watcher.nothingDrained()
}

// Goal: what is held still can be taken away. Method: an export is deleted and the server stopped under a lease.
func TestLeaseAndTheEndOfExports(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a", "b")
	o.begin(`{"exports":["a","b"],"lease":600}`)
	o.must("block-export-del", `{"id":"a"}`)
	o.await("BLOCK_EXPORT_DELETED")
	o.must("nbd-server-stop", "")
	require.Empty(t, o.must("query-block-exports", ""))
}

// Goal: what is named twice is held once. Method: an export by its id, again, and by its node, twice; the section lists export and node, each once,
// and ends at once.
func TestLeaseOnTheSameTwice(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "e")
	id := o.begin(`{"exports":["e","e"],"nodes":["e","e"],"lease":60}`)
	sections := o.must("x-query-drains", "").([]any)
	require.Len(t, sections, 1)
	require.Equal(t, []any{"e"}, sections[0].(map[string]any)["exports"])
	require.Equal(t, []any{"e"}, sections[0].(map[string]any)["nodes"])
	require.Equal(t, 1, h.graph.Node("e").Quiesced())
	o.must("x-drain-end", `{"id":"`+id+`"}`)
	require.Zero(t, h.graph.Node("e").Quiesced())
}
