package nfs

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// lastWriter is a driver that has something to write to the node below it when it is closed, as images have.
type lastWriter struct {
	edge *blockcore.Edge
	err  error // of that
}

func (d *lastWriter) Size() int64 { return 1 << 20 }

func (d *lastWriter) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	return d.edge.Read(t, p, off)
}

func (d *lastWriter) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	return d.edge.Write(t, p, off, flags)
}

func (d *lastWriter) SetChild(_ blockcore.Role, e *blockcore.Edge) {
	if e != nil {
		d.edge = e
	}
}

func (d *lastWriter) ChildPermissions(_ blockcore.Role, perm, shared blockcore.Permissions) (takes, shares blockcore.Permissions) {
	return perm | blockcore.PermRead | blockcore.PermWrite, shared
}

func (d *lastWriter) Close(t *blockcore.Task) error {
	buf := t.Buffers().Get(pageBytes)
	defer t.Buffers().Put(buf)
	clear(buf)
	d.err = d.edge.Write(t, buf, 0, 0)
	return d.err
}

// Goal: what an image writes to a silent server when it is closed does not outlive the node of its file: that is closed in time, with its connections and locks, and the image too. Method: a driver
// with something to write, removed above a file of a server that is silent for hours; then the file, with what has been waiting in it.
func TestFileBelowAnImageThatIsClosedGoes(t *testing.T) {
	simScript(t, 0, 0, func(c *simThread) {
		w := c.w
		w.root.Close()
		c.pause(0)
		above := &lastWriter{}
		n, err := w.graph.AddNode(blockcore.NodeOptions{Name: "image", Driver: above, Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: w.node}}})
		require.NoError(t, err)
		w.silent = w.Now() + 5*time.Hour
		require.ErrorContains(t, w.graph.RemoveNode(n), "left to itself")
		c.pause(0)
		since := w.Now()
		require.NoError(t, w.graph.RemoveNode(w.node))
		c.pause(0)
		require.LessOrEqual(t, w.Now()-since, closeMax+2*time.Second)
		require.ErrorIs(t, above.err, errSilent)
		require.Equal(t, -1, w.file.conns[0].fd)
		w.silent = 0
	})
}
