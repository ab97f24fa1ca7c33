package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/blockcore"
)

// image is a qcow2 image in a simulated file.
type image struct {
	wrapped
	kept map[string][]uint64 // what the cells were at a snapshot, by its id
	lost bool                // bitmaps could not be stored
}

// PrepareReopen implements blockcore.Reopener.
func (i *image) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(*blockcore.Task), err error) {
	return i.inner.(blockcore.Reopener).PrepareReopen(t, options)
}

// OptionsFor implements blockcore.AccessChanger.
func (i *image) OptionsFor(readOnly bool) any {
	return i.inner.(blockcore.AccessChanger).OptionsFor(readOnly)
}

// MayKeep implements blockcore.BitmapKeeper.
func (i *image) MayKeep(t *blockcore.Task, name string, granularityBits uint) error {
	return i.inner.(blockcore.BitmapKeeper).MayKeep(t, name, granularityBits)
}

// ChangeKept implements blockcore.BitmapKeeper.
func (i *image) ChangeKept(t *blockcore.Task) error {
	return i.told(i.inner.(blockcore.BitmapKeeper).ChangeKept(t))
}

// DropKept implements blockcore.BitmapKeeper.
func (i *image) DropKept(t *blockcore.Task, name string) error {
	return i.told(i.inner.(blockcore.BitmapKeeper).DropKept(t, name))
}

// BlockStatus implements blockcore.Mapper.
func (i *image) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	defer i.enter("status")()
	return i.inner.(blockcore.Mapper).BlockStatus(t, r, exts, max)
}

// Snapshots implements blockcore.Snapshotter.
func (i *image) Snapshots(t *blockcore.Task) ([]blockcore.Snapshot, error) {
	return i.inner.(blockcore.Snapshotter).Snapshots(t)
}

// CreateSnapshot implements blockcore.Snapshotter.
func (i *image) CreateSnapshot(t *blockcore.Task, name string, taken time.Time) (string, error) {
	return i.inner.(blockcore.Snapshotter).CreateSnapshot(t, name, taken)
}

// DeleteSnapshot implements blockcore.Snapshotter.
func (i *image) DeleteSnapshot(t *blockcore.Task, id string) error {
	return i.inner.(blockcore.Snapshotter).DeleteSnapshot(t, id)
}

// ApplySnapshot implements blockcore.Snapshotter.
func (i *image) ApplySnapshot(t *blockcore.Task, id string) error {
	return i.inner.(blockcore.Snapshotter).ApplySnapshot(t, id)
}

// newImage wraps what was opened.
func (w *world) newImage(name string, inner *qcow2.Image) *image {
	i := &image{kept: map[string][]uint64{}}
	i.inner = inner
	i.layer.init(w, name, i)
	return i
}

// memory is a file for the tools that work without a graph.
type memory struct{ p []byte }

// Size implements offline.File.
func (m *memory) Size() (int64, error) { return int64(len(m.p)), nil }

// Sync implements offline.File.
func (m *memory) Sync() error { return nil }

// Truncate implements offline.File.
func (m *memory) Truncate(sizeBytes int64) error {
	m.p = resized(m.p, int(sizeBytes))
	return nil
}

// ReadAt implements io.ReaderAt.
func (m *memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m.p).ReadAt(p, off) }

// WriteAt implements io.WriterAt.
func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.p)) {
		m.p = resized(m.p, int(end))
	}
	return copy(m.p[off:], p), nil
}

// emptyImage makes an image of the kind that the seed chooses.
func (w *world) emptyImage(rng *rand.Rand, sizeBytes int64, hasBacking bool) []byte {
	o := offline.CreateOptions{SizeBytes: sizeBytes, Version: 2 + min(rng.IntN(4), 1), ClusterBytes: 512 << rng.IntN(4)}
	if o.Version == 3 {
		o.RefcountBits = 1 << (3 + rng.IntN(4))
		o.LazyRefcounts = rng.IntN(3) == 0
		if o.ExtendedL2 = rng.IntN(4) == 0; o.ExtendedL2 {
			o.ClusterBytes = 16 << 10
		}
	}
	if hasBacking {
		o.Backing, o.BackingFormat = "below", "qcow2"
	}
	m := &memory{}
	if err := offline.Create(m, nil, o, nil); err != nil {
		w.Fail("creating an image of %+v: %v", o, err)
	}
	return m.p
}

// someOptions draw how an image is used.
func someOptions(rng *rand.Rand) qcow2.Options {
	o := qcow2.Options{Unmap: rng.IntN(2) == 0, DetectZeroes: qcow2.DetectZeroes(rng.IntN(3))}
	if rng.IntN(2) == 0 {
		small := int64(1)
		o.Caches.L2, o.Caches.Refcount = &small, &small
	}
	return o
}

// opening is an image that is open, and not in the graph, with the Root that keeps others from its file.
type opening struct {
	image *image
	file  *file
	root  *blockcore.Root
}

// openImage puts a file into the graph and opens the image in it. A section of our own would hold it up for ever.
func (c *controller) openImage(f *file, ctx *blockcore.AioContext, name string, o qcow2.Options) (_ *opening, err error) {
	w := c.w
	for len(c.sections) > 0 {
		c.endOne()
	}
	err = c.updateWhole("add "+f.name, func(tx *blockcore.Tx) error {
		_, err := tx.AddNode(blockcore.NodeOptions{Name: f.name, Context: ctx, Driver: f})
		return err
	})
	if err != nil {
		w.Fail("file %s: %v", f.name, err)
		return nil, err
	}
	options := blockcore.RootOptions{Name: "open " + name, Writable: !o.ReadOnly, Unshared: blockcore.PermWrite | blockcore.PermResize}
	if !o.ReadOnly {
		options.Permissions = blockcore.PermResize
	}
	root, err := w.graph.NewRoot(f.node, options)
	c.park(0)
	if err != nil {
		w.Fail("file %s cannot be used: %v", f.name, err)
		return nil, err
	}
	p := &opening{file: f, root: root}
	o.Warn = func(text string) {
		if strings.Contains(text, "Lost persistent bitmaps") {
			p.image.lost = true
		}
	}
	err = p.do(func(t *blockcore.Task) error {
		inner, err := qcow2.Open(t, root.Edge(), o)
		if err == nil {
			p.image = w.newImage(name, inner)
		}
		return err
	})
	c.park(0)
	if err != nil {
		c.forget(p)
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return p, nil
}

// do runs fn on the loop of the file, in no section.
func (p *opening) do(fn func(t *blockcore.Task) error) error {
	return p.root.Context().Do(func(t *blockcore.Task) error {
		k := blockcore.Ticket{Op: "open"}
		if !p.root.Begin(t, &k) {
			return errMoved
		}
		defer p.root.End(t, &k)
		return fn(t)
	})
}

// add puts the image into the graph, in place of its Root.
func (p *opening) add(tx *blockcore.Tx, children ...blockcore.ChildOptions) (*blockcore.Node, error) {
	tx.CloseRoot(p.root)
	children = append([]blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: p.file.node}}, children...)
	return tx.AddNode(blockcore.NodeOptions{Name: p.image.name, Driver: p.image, Children: children})
}

// forget closes an image that has not come into the graph, and removes its file.
func (c *controller) forget(p *opening) {
	if p.image != nil {
		err := p.do(p.image.inner.Close)
		c.park(0)
		c.mayFail("close of "+p.image.name, err)
	}
	p.root.Close()
	c.park(0)
	c.mayFail("remove "+p.file.name, c.updateWhole("remove "+p.file.name, func(tx *blockcore.Tx) error { return c.removeNode(tx, &p.file.layer) }))
}

// mayFail lets only an injected error pass.
func (c *controller) mayFail(what string, err error) {
	if err != nil && !isInjected(err) {
		c.w.Fail("%s: %v", what, err)
	}
}
