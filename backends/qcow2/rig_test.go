package qcow2

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: the package starts no goroutines; method: look for them when all tests are over.
func TestMain(m *testing.M) {
	setUpSecondOpinion()
	goleak.VerifyTestMain(m)
}

// scratch is a directory on a disk whose flushes cost nothing.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "qcow2-test")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// tool runs one of QEMU's tools and returns what it prints.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %q: %s", name, args, out)
	return string(out)
}

// create has qemu-img make an image.
func create(t *testing.T, path, size, options string, more ...string) string {
	t.Helper()
	args := []string{"create", "-q", "-f", "qcow2"}
	if options != "" {
		args = append(args, "-o", options)
	}
	tool(t, "qemu-img", append(append(args, more...), path, size)...)
	return path
}

// checkImage has qemu-img look for errors and leaks.
func checkImage(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// put opens the image in the node file and puts it into the graph.
func put(g *blockcore.Graph, name string, file *blockcore.Node, o Options, more ...blockcore.ChildOptions) (*blockcore.Node, error) {
	perm := blockcore.PermRead
	if !o.ReadOnly {
		perm |= blockcore.PermResize
	}
	root, err := g.NewRoot(file, blockcore.RootOptions{Name: "open", Writable: !o.ReadOnly, Permissions: perm})
	if err != nil {
		return nil, err
	}
	var i *Image
	err = root.Context().Do(func(t *blockcore.Task) (err error) {
		i, err = Open(t, root.Edge(), o)
		return err
	})
	if err != nil {
		root.Close()
		return nil, err
	}
	var n *blockcore.Node
	err = g.Update(context.Background(), "add", func(tx *blockcore.Tx) (err error) {
		tx.CloseRoot(root)
		n, err = tx.AddNode(blockcore.NodeOptions{Name: name, Driver: i,
			Children: append([]blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: file}}, more...)})
		return err
	})
	if err != nil {
		_ = file.Context().Do(i.Close)
		root.Close()
	}
	return n, err
}

// rig is an image in a file, with an owner that uses it.
type rig struct {
	t     *testing.T
	ctx   *blockcore.AioContext
	graph *blockcore.Graph
	root  *blockcore.Root
	image *Image
	nodes int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{t: t, ctx: blocktest.NewContext(t, blockcore.EngineAuto), graph: blockcore.NewGraph()}
}

// file adds a file to the graph.
func (r *rig) file(path string, readOnly bool) *blockcore.Node {
	r.t.Helper()
	f, err := raw.Open(raw.Options{Path: path, ReadOnly: readOnly, Discard: raw.DiscardUnmap})
	require.NoError(r.t, err)
	r.nodes++
	n, err := r.graph.AddNode(blockcore.NodeOptions{Name: fmt.Sprintf("file%d", r.nodes), Context: r.ctx, Driver: f})
	require.NoError(r.t, err)
	return n
}

// add adds an image to the graph.
func (r *rig) add(path string, o Options, more ...blockcore.ChildOptions) *blockcore.Node {
	r.t.Helper()
	if o.Warn == nil {
		o.Warn = func(text string) { r.t.Log(text) }
	}
	file := r.file(path, o.ReadOnly)
	r.nodes++
	n, err := put(r.graph, fmt.Sprintf("image%d", r.nodes), file, o, more...)
	require.NoError(r.t, err)
	return n
}

// use attaches the owner.
func (r *rig) use(n *blockcore.Node) *rig {
	r.t.Helper()
	var err error
	r.image = n.Driver().(*Image)
	r.root, err = r.graph.NewRoot(n, blockcore.RootOptions{Name: "owner", Writable: n.Writable(), Permissions: blockcore.PermRead})
	require.NoError(r.t, err)
	r.t.Cleanup(r.close)
	return r
}

// open is an image that is used.
func open(t *testing.T, path string, o Options) *rig {
	t.Helper()
	r := newRig(t)
	return r.use(r.add(path, o))
}

// close takes the graph down.
func (r *rig) close() {
	r.t.Helper()
	if r.root == nil {
		return
	}
	r.root.Close()
	r.root = nil
	require.NoError(r.t, r.graph.RemoveNodes())
	require.Empty(r.t, r.graph.Nodes())
}

func (r *rig) do(fn func(t *blockcore.Task, e *blockcore.Edge) error) error {
	return r.ctx.Do(func(t *blockcore.Task) error { return fn(t, r.root.Edge()) })
}

func (r *rig) read(off, n int64) []byte {
	r.t.Helper()
	got := make([]byte, n)
	require.NoError(r.t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(int(n))
		defer t.Buffers().Put(p)
		err := e.Read(t, p, off)
		copy(got, p)
		return err
	}))
	return got
}

func (r *rig) write(off int64, data []byte) {
	r.t.Helper()
	require.NoError(r.t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(len(data))
		defer t.Buffers().Put(p)
		copy(p, data)
		return e.Write(t, p, off, 0)
	}))
}

// contents reads all of the disk.
func (r *rig) contents() []byte {
	r.t.Helper()
	var all bytes.Buffer
	const step = 1<<20 + 513
	for off, size := int64(0), r.image.Size(); off < size; off += step {
		all.Write(r.read(off, min(step, size-off)))
	}
	return all.Bytes()
}

// flat is what qemu-img sees of an image.
func flat(t *testing.T, path string, more ...string) []byte {
	t.Helper()
	to := filepath.Join(t.TempDir(), "flat")
	tool(t, "qemu-img", append(append([]string{"convert", "-O", "raw"}, more...), path, to)...)
	p, err := os.ReadFile(to)
	require.NoError(t, err)
	return p
}

// requireSame compares disks without printing them.
func requireSame(t require.TestingT, want, got []byte, what string) {
	if bytes.Equal(want, got) {
		return
	}
	require.Equal(t, len(want), len(got), what)
	for k := range want {
		if want[k] != got[k] {
			require.FailNow(t, what, "differs at %#x: want %#x, got %#x", k, want[k], got[k])
		}
	}
}
