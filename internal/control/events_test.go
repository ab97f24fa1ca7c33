package control

import (
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/nbd"
)

// dataOf is what an event says.
func dataOf(t *testing.T, data json.RawMessage) map[string]any {
	t.Helper()
	var all map[string]any
	require.NoError(t, json.Unmarshal(data, &all))
	return all
}

// Goal: when nbd-server-stop returns all exports are gone and every monitor has been told. Method: the events are there when the answer is,
// behind which nothing is waited for.
func TestStopTellsBeforeItReturns(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a", "b", "c")
	o.must("nbd-server-stop", "")
	gone := map[any]bool{}
	for len(o.Events()) > 0 {
		if e := <-o.Events(); e.Name == "BLOCK_EXPORT_DELETED" {
			gone[dataOf(t, e.Data)["id"]] = true
		}
	}
	require.Equal(t, map[any]bool{"a": true, "b": true, "c": true}, gone)
	require.Empty(t, o.must("query-block-exports", ""))
	o.refused("nbd-server-stop", "", "NBD server not running")
	o.refused("block-export-add", `{"type":"nbd","id":"a","node-name":"a"}`, "NBD server not running")
}

// Goal: an export is told gone when it is, and not before. Method: a client whose request does not end; the export is still listed, as
// shutting down, until the disk answers.
func TestExportIsGoneWhenItsRequestsAre(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	open := h.gate("a").close()
	a := h.client("a")
	a.send()
	require.Eventually(t, func() bool { return h.graph.Node("a").InFlight() == 1 }, patience, time.Millisecond)
	o.refused("block-export-del", `{"id":"a"}`, "export 'a' still in use")
	o.must("block-export-del", `{"id":"a","mode":"hard"}`)
	o.refused("block-export-del", `{"id":"a","mode":"hard"}`, "Export 'a' is already shutting down")
	require.Equal(t, true, o.must("query-block-exports", "").([]any)[0].(map[string]any)["shutting-down"])
	o.refused("block-export-add", `{"type":"nbd","id":"a","node-name":"a"}`, "Block export id 'a' is already in use")
	o.refused("blockdev-del", `{"node-name":"a"}`, "Node a is in use")
	open()
	require.Equal(t, "a", dataOf(t, o.await("BLOCK_EXPORT_DELETED").Data)["id"])
	o.must("blockdev-del", `{"node-name":"a"}`)
}

// Goal: monitors are told of clients. Method: one comes and is thrown out.
func TestClientsAreTold(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	o.refused("x-client-disconnect", `{"id":77}`, "")
	a := h.client("a")
	id := dataOf(t, o.await("X_CLIENT_CONNECTED").Data)["id"]
	clients := o.must("x-query-clients", "").([]any)
	require.Len(t, clients, 1)
	require.Equal(t, id, clients[0].(map[string]any)["id"])
	a.send()
	a.receive()
	text, err := json.Marshal(map[string]any{"id": id})
	require.NoError(t, err)
	o.must("x-client-disconnect", string(text))
	require.Equal(t, "a", dataOf(t, o.await("X_CLIENT_DISCONNECTED").Data)["export"])
	_, err = a.conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.Empty(t, o.must("x-query-clients", ""))
}

// Goal: an export shows the node that it is on now, whatever the graph does under it. Method: a filter is put above its node and taken away,
// the node is replaced; its client goes on.
func TestExportsFollowTheGraph(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	a := h.client("a")
	node := func() any { return o.must("query-block-exports", "").([]any)[0].(map[string]any)["node-name"] }
	o.must("blockdev-add", `{"driver":"pass","node-name":"f","file":"a"}`)
	o.must("blockdev-add", `{"driver":"gate","node-name":"b"}`)
	flushes := func() int32 { return h.gate("a").flushes.Load() + h.gate("b").flushes.Load() }
	for _, step := range []struct{ command, arguments, node string }{
		{"x-blockdev-insert", `{"node-name":"f","above":"a"}`, "f"},
		{"x-blockdev-remove", `{"node-name":"f"}`, "a"},
		{"x-blockdev-insert", `{"node-name":"f","above":"a"}`, "f"},
		{"blockdev-reopen", `{"options":[{"driver":"pass","node-name":"f","file":"b"}]}`, "f"},
		{"x-blockdev-replace", `{"node-name":"f","with":"a"}`, "a"},
		{"x-blockdev-replace", `{"node-name":"a","with":"a"}`, "a"},
		{"x-blockdev-replace", `{"node-name":"a","with":"b"}`, "b"},
	} {
		before := flushes()
		o.must(step.command, step.arguments)
		if step.command == "x-blockdev-replace" || step.command == "blockdev-reopen" {
			require.Greater(t, flushes(), before, "what was acknowledged is durable: %s", step.arguments)
		}
		o.await("X_GRAPH_CHANGED")
		require.Equal(t, step.node, node(), step.arguments)
		a.send()
		a.receive()
	}
	o.refused("x-blockdev-remove", `{"node-name":"a"}`, "Node 'a' is no filter and cannot be left out")
	o.refused("x-blockdev-insert", `{"node-name":"a","above":"b"}`, "Node 'b' is no child of 'a'")
	o.refused("x-blockdev-insert", `{"node-name":"nope","above":"b"}`, "node-name='nope'")
	o.must("object-add", `{"qom-type":"iothread","id":"t"}`)
	o.must("x-blockdev-set-iothread", `{"node-name":"b","iothread":"t","force":true}`)
	o.refused("object-del", `{"id":"t"}`, "object 't' is in use, can not be deleted")
	a.send()
	a.receive()
	o.must("nbd-server-stop", "")
	o.must("object-del", `{"id":"t"}`)
}

// Goal: limits are put on an export and taken off under its client, and a group that is in use stays. Method: both, with requests between.
func TestExportThrottle(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o, "a")
	a := h.client("a")
	o.must("object-add", `{"qom-type":"throttle-group","id":"g","limits":{"iops-total":100000}}`)
	o.must("x-export-set-throttle", `{"id":"a","group":"g"}`)
	a.send()
	a.receive()
	o.refused("object-del", `{"id":"g"}`, "object 'g' is in use, can not be deleted")
	o.must("qom-set", `{"path":"/objects/g","property":"limits","value":{"iops-total":200000}}`)
	o.must("x-export-set-throttle", `{"id":"a","group":null}`)
	o.must("object-del", `{"id":"g"}`)
	a.send()
	a.receive()
	o.refused("x-export-set-throttle", `{"id":"a","group":"g"}`, "Throttle group 'g' does not exist")
	o.refused("x-export-set-throttle", `{"id":"nope","group":null}`, "Export 'nope' is not found")
}

// Goal: what fails leaves nothing behind. Method: commands that fail late; then the registries are empty, and the names free.
func TestFailuresLeaveNothing(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	for _, c := range []struct{ name, arguments string }{
		{"blockdev-add", `{"driver":"pass","file":{"driver":"null-co","size":512}}`},
		{"blockdev-add", `{"driver":"pass","node-name":"x","file":{"driver":"null-co","node-name":"x"}}`},
		{"blockdev-add", `{"driver":"pass","node-name":"x","file":{"driver":"pass","file":{"driver":"pass","file":"nope"}}}`},
		{"object-add", `{"qom-type":"iothread","id":"t","poll-max-ns":-1}`},
		{"object-add", `{"qom-type":"throttle-group","id":"g","limits":{"iops-total":-1}}`},
		{"nbd-server-start", `{"addr":{"type":"unix","data":{"path":"` + long(200) + `"}}}`},
	} {
		o.refused(c.name, c.arguments, "")
	}
	h.empty()
	require.Len(t, o.must("qom-list", `{"path":"/objects"}`), 1, "its type")
	h.serve(o)
	o.must("blockdev-add", `{"driver":"null-co","node-name":"x"}`)
	o.refused("block-export-add", `{"type":"nbd","id":"e","node-name":"x","name":"`+long(5000)+`"}`, "too long")
	o.refused("block-export-add", `{"type":"nbd","id":"e","node-name":"x","x-throttle-group":"nope"}`, "does not exist")
	o.must("block-export-add", `{"type":"nbd","id":"e","node-name":"x"}`)
	o.refused("block-export-add", `{"type":"nbd","id":"f","node-name":"x"}`, "NBD server already has export named 'x'")
	require.Len(t, o.must("query-block-exports", ""), 1)
	require.Len(t, h.graph.Roots(), 1)
	require.EqualValues(t, 0, h.quits.Load())
	o.must("quit", "")
	require.Eventually(t, func() bool { return h.quits.Load() == 1 }, patience, time.Millisecond)
}

// Goal: each command of the table refuses arguments that nobody knows, so that a slip of the pen is told. Method: all are asked with one.
func TestCommandsRefuseWhatTheyDoNotKnow(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	for _, c := range h.plane.commands() {
		_, err := o.ask(c.Name, `{"x-nobody":1}`)
		require.Error(t, err, c.Name)
	}
}

// Goal: the clients of an export that retires meet ESHUTDOWN when it goes and nobody says otherwise, and a closed connection when somebody does.
// Method: both ways, with a request after the command.
func TestFarewellsOfExports(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o)
	o.must("blockdev-add", `{"driver":"gate","node-name":"a"}`)
	for _, retires := range []bool{true, false} {
		o.must("block-export-add", `{"type":"nbd","id":"a","node-name":"a","x-farewell":"retire"}`)
		a := h.client("a")
		a.send()
		a.receive() // now the server counts it among the clients of the export
		order := `{"id":"a","mode":"hard"}`
		if !retires {
			order = `{"id":"a","mode":"hard","x-farewell":"restart"}`
		}
		o.must("block-export-del", order)
		if retires {
			require.Equal(t, uint32(nbd.EShutdown), a.untilRefused())
			a.conn.Close()
		}
		o.await("BLOCK_EXPORT_DELETED")
		if !retires {
			_, err := a.conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
		}
	}
	o.refused("block-export-add", `{"type":"nbd","id":"a","node-name":"a","x-farewell":"rudely"}`, "does not accept value 'rudely'")
}

// Goal: an export does not come back with less than clients have seen, also where the NBD server was stopped and started between; who says so gets
// it. Method: writable, then read-only, on the same server and on the next one.
func TestExportsDoNotComeBackWithLess(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	const start = `{"addr":{"type":"unix","data":{"path":"s"}}}`
	o.must("nbd-server-start", start)
	o.must("blockdev-add", `{"driver":"gate","node-name":"a"}`)
	o.must("block-export-add", `{"type":"nbd","id":"a","node-name":"a","writable":true}`)
	o.must("block-export-del", `{"id":"a"}`)
	o.await("BLOCK_EXPORT_DELETED")
	const less = `{"type":"nbd","id":"a","node-name":"a"}`
	o.refused("block-export-add", less, "it was writable and would come back read-only")
	o.must("nbd-server-stop", "")
	o.must("nbd-server-start", start)
	o.refused("block-export-add", less, "it was writable and would come back read-only")
	o.must("block-export-add", `{"type":"nbd","id":"a","node-name":"a","x-allow-less":true}`)
}
