package control

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: block-export-del in mode safe throws nobody out, whenever he comes. Method: clients connect while it is asked for, again and again: who has got
// in is served, and the export is removed only where nobody has.
func TestSafeRemovalRacesWithConnects(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	h.serve(o)
	o.must("blockdev-add", `{"driver":"null-co","node-name":"n"}`)
	for range 50 {
		o.must("block-export-add", `{"type":"nbd","id":"e","node-name":"n"}`)
		var c *client
		came := make(chan error, 1)
		go func() {
			var err error
			c, err = h.tryClient("e")
			came <- err
		}()
		_, err := o.ask("block-export-del", `{"id":"e"}`)
		if <-came == nil {
			require.ErrorContains(t, err, "still in use")
			c.send()
			c.receive()
			c.conn.Close()
			o.must("block-export-del", `{"id":"e","mode":"hard"}`)
		} else {
			require.NoError(t, err)
		}
		o.await("BLOCK_EXPORT_DELETED")
	}
}
