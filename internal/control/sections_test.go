package control

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// drains is the answer to x-query-drains.
func (o *operator) drains() (list []sectionInfo) {
	o.t.Helper()
	text, err := json.Marshal(o.must("x-query-drains", ""))
	require.NoError(o.t, err)
	require.NoError(o.t, json.Unmarshal(text, &list))
	return list
}

// Goal: a section that waits is told with its id, what it covers, its phase, its age and whom it waits for, is nowhere told to be still, and
// can be ended by its id. Method: a disk holds a read, a lease is asked for by one monitor and looked at by another.
func TestSectionThatWaits(t *testing.T) {
	h := newHouse(t)
	watcher, o := h.monitor(), h.monitor()
	h.serve(watcher, "a", "b")
	open := h.gate("a").close()
	a := h.client("a")
	a.send()
	require.Eventually(t, func() bool { return h.graph.Node("a").InFlight() == 1 }, patience, time.Millisecond)
	refused := make(chan error, 1)
	go func() {
		_, err := o.ask("x-drain-begin", `{"exports":["a","b"],"lease":60,"timeout":600,"flush":false}`)
		refused <- err
	}()
	require.Eventually(t, func() bool {
		list := watcher.drains()
		return len(list) == 1 && list[0].Phase == "settle"
	}, patience, time.Millisecond)
	d := watcher.drains()[0]
	require.Equal(t, "drain1", *d.ID)
	require.ElementsMatch(t, []string{"a", "b"}, d.Exports)
	require.ElementsMatch(t, []string{"a", "b"}, d.Nodes)
	require.False(t, d.Settled)
	require.Zero(t, d.LeaseMS)
	require.Zero(t, d.HeldMS)
	require.Equal(t, 1, d.Waiting)
	require.Equal(t, "a", d.WaitsFor[0].Export)
	require.Equal(t, "a", d.WaitsFor[0].Node)
	require.EqualValues(t, readBytes, d.WaitsFor[0].Length)
	for _, e := range watcher.must("query-block-exports", "").([]any) {
		require.Equal(t, "settle", e.(map[string]any)["x-phase"])
		require.Equal(t, []any{"drain1"}, e.(map[string]any)["x-sections"])
	}
	for _, v := range watcher.must("x-debug-query-block-graph", "").(map[string]any)["nodes"].([]any) {
		require.Equal(t, "settle", v.(map[string]any)["x-phase"])
	}
	watcher.refused("x-drain-renew", `{"id":"drain1","lease":5}`, "has not begun")
	watcher.must("x-drain-end", `{"id":"drain1"}`)
	require.ErrorContains(t, <-refused, "was ended before it began")
	watcher.nothingDrained()
	open()
	a.receive()
}

// Goal: a section that is still is told so, a change has one without an id, and the end tells how long going on has taken. Method: a lease, with
// another export moved under it, and the events of both.
func TestSectionThatIsStill(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a", "b")
	id := o.begin(`{"exports":["a"],"lease":60}`)
	begun := time.Now()
	d := o.drains()[0]
	require.Equal(t, id, *d.ID)
	require.Equal(t, "still", d.Phase)
	require.True(t, d.Settled)
	require.Positive(t, d.LeaseMS)
	require.Equal(t, []string{"a"}, d.Exports)
	require.Empty(t, d.WaitsFor)
	phases := map[string]string{}
	for _, e := range o.must("query-block-exports", "").([]any) {
		e := e.(map[string]any)
		phases[e["id"].(string)] = e["x-phase"].(string)
	}
	require.Equal(t, map[string]string{"a": "still", "b": "none"}, phases)
	o.must("x-drain-end", `{"id":"`+id+`"}`)
	require.Empty(t, o.drains(), "clients go on when the end is answered")
	var resumed struct {
		Why    string
		Held   int64 `json:"held-us"`
		Resume int64 `json:"resume-us"`
	}
	require.NoError(t, json.Unmarshal(o.await("X_DRAIN_RESUMED").Data, &resumed))
	require.Equal(t, "lease "+id, resumed.Why)
	require.Less(t, resumed.Held+resumed.Resume, time.Since(begun).Microseconds()+time.Second.Microseconds())
}
