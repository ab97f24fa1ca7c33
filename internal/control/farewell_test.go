package control

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: clients of an export that goes with a pause go on, over the same connection, as clients of the next one of its name, wherever that runs; its node and its
// iothread can be removed meanwhile. Method: by what the export was made with, and by what is said at its end; a request sent into the pause.
func TestPauseOfExports(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o)
	for _, order := range []string{`{"id":"a","mode":"hard"}`, `{"id":"a","mode":"hard","x-farewell":"pause","x-pause":20}`} {
		o.must("object-add", `{"qom-type":"iothread","id":"t"}`)
		o.must("blockdev-add", `{"driver":"gate","node-name":"a"}`)
		o.must("block-export-add", `{"type":"nbd","id":"a","node-name":"a","name":"n","iothread":"t","x-farewell":"pause"}`)
		a := h.client("n")
		a.send()
		a.receive()
		o.must("block-export-del", order)
		o.await("X_CLIENTS_HELD")
		o.await("BLOCK_EXPORT_DELETED")
		o.must("blockdev-del", `{"node-name":"a"}`)
		o.must("object-del", `{"id":"t"}`)
		a.send()
		a.silent()
		o.must("blockdev-add", `{"driver":"gate","node-name":"b"}`)
		o.must("block-export-add", `{"type":"nbd","id":"b","node-name":"b","name":"n"}`)
		a.receive()
		require.Contains(t, string(o.await("X_CLIENTS_RELEASED").Data), `"taken over"`)
		a.conn.Close()
		o.await("X_CLIENT_DISCONNECTED")
		o.must("block-export-del", `{"id":"b"}`)
		o.await("BLOCK_EXPORT_DELETED")
		o.must("blockdev-del", `{"node-name":"b"}`)
	}
}

// Goal: a pause that nobody ends in time is a restart, and so is the pause of an export when the server stops; mistakes are named. Method: a client each time.
func TestPauseIsARestartWithoutAnotherExport(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o)
	o.must("blockdev-add", `{"driver":"gate","node-name":"a"}`)
	const add = `{"type":"nbd","id":"a","node-name":"a","x-farewell":"pause","x-pause":1}`
	for _, stops := range []bool{false, true} {
		o.must("block-export-add", add)
		a := h.client("a")
		a.send()
		a.receive()
		if stops {
			o.must("nbd-server-stop", "")
		} else {
			o.must("block-export-del", `{"id":"a","mode":"hard"}`)
			require.Contains(t, string(o.await("X_CLIENTS_RELEASED").Data), `"limit reached"`)
		}
		_, err := a.conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	o.must("nbd-server-start", `{"addr":{"type":"unix","data":{"path":"s2"}}}`)
	o.refused("block-export-add", `{"type":"nbd","id":"a","node-name":"a","x-pause":1}`, "Parameter 'x-pause' goes with x-farewell=pause")
	o.refused("block-export-add", `{"type":"nbd","id":"a","node-name":"a","x-farewell":"pause","x-pause":3601}`, "a number of seconds from 1 to 3600")
}
