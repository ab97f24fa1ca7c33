package control

import (
	"context"
	"errors"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// Creator reads the options of an image, or of a file, that blockdev-create is to make, and returns how.
type Creator func(options qmp.Value) (func(c *Creation) error, error)

// Creation is the making of an image.
type Creation struct {
	plane *Plane
}

type createArgs struct {
	JobID   string    `qmp:"job-id"`
	Options qmp.Value `qmp:"options"`
}

// blockdevCreate has a job make an image.
func (p *Plane) blockdevCreate(ctx context.Context, _ *qmp.Call, a *createArgs) (any, error) {
	var head struct {
		Driver string `qmp:"driver"`
	}
	rest, err := a.Options.Take(&head)
	if err != nil {
		return nil, err
	}
	read, can := p.options.Creators[head.Driver]
	switch {
	case !p.hasDriver(head.Driver):
		return nil, qmp.NotAccepted("driver", head.Driver)
	case !can:
		return nil, qmp.Errorf("Driver does not support blockdev-create")
	}
	do, err := read(rest)
	if err != nil {
		return nil, err
	}
	j, err := p.jobs.New(ctx, blockcore.JobOptions{
		ID: a.JobID, Type: "create", Body: &creating{do: func() error { return do(&Creation{p}) }}, Context: p.options.Main, ManualDismiss: true,
	})
	if err != nil {
		return nil, err
	}
	return nil, j.Start()
}

// creating is the body of a job that makes an image. The work is done by a goroutine of its own (work), since it waits for files and for the loop; it cannot
// be paused, and is waited for when the job is cancelled.
type creating struct {
	// Immutable.
	do func() error

	// Owned by the context.
	done  bool
	err   error
	ended blockcore.WaitQueue
}

// Run starts the work and waits for its end.
func (c *creating) Run(t *blockcore.Task, _ *blockcore.Job) error {
	go c.work(t.Context())
	for !c.done {
		t.Wait(&c.ended)
	}
	return c.err
}

// work makes the image and wakes the job.
func (c *creating) work(loop *blockcore.AioContext) {
	err := c.do()
	// A loop that is closed has no Task that waits: it ends when its Tasks have.
	_ = loop.Do(func(*blockcore.Task) error {
		c.done, c.err = true, err
		c.ended.WakeAll()
		return nil
	})
}

// FilesInUse are the files that nodes have open, by the names of the nodes.
func (c *Creation) FilesInUse() map[string]string { return c.plane.filesInUse() }

// Filename is the name of the file at the bottom of a node; "" = it has none.
func (c *Creation) Filename(n *blockcore.Node) string {
	if f, ok := bottomOf(n).Driver().(filenamer); ok {
		return f.Path()
	}
	return ""
}

// Resize makes a node that long, rounded up to what it can be. What it gains is a hole where there are holes.
func (c *Creation) Resize(n *blockcore.Node, sizeBytes int64) error {
	return c.plane.resize(context.Background(), "create", n, blockcore.Range{Length: sizeBytes}.Widen(n.Limits().Align).Length)
}

// IsReference judges the form of what On takes.
func IsReference(ref qmp.Value) error {
	if kind := ref.Kind(); kind != qmp.String && kind != qmp.Object {
		return ref.WrongType("BlockdevRef")
	}
	return nil
}

// On runs fn with an owner's handle on a node that is there, or that is described and open for as long as fn takes. Nobody else does to it what unshared names.
func (c *Creation) On(ref qmp.Value, unshared blockcore.Permissions, fn func(r *blockcore.Root) error) (err error) {
	p := c.plane
	var n *blockcore.Node
	switch ref.Kind() {
	case qmp.String:
		var name string
		if err := ref.Decode(&name); err != nil {
			return err
		}
		if n, err = p.either(name); err != nil {
			return err
		}
	case qmp.Object:
		if n, err = p.openOnce(ref); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.removeAdded(n)) }()
	default:
		return IsReference(ref)
	}
	if !n.Writable() {
		return qmp.Errorf("Block node is read-only")
	}
	r, err := p.graph.NewRoot(n, blockcore.RootOptions{Writable: true, Permissions: blockcore.PermWrite | blockcore.PermResize, Unshared: unshared})
	if err != nil {
		return err
	}
	defer r.Close()
	return fn(r)
}

// openOnce puts a node into the graph for a while.
func (p *Plane) openOnce(v qmp.Value) (*blockcore.Node, error) {
	// As the child of an image that is not there yet, so it needs no name.
	m, err := p.openAs(v, &Opening{plane: p, inherits: &Opening{images: true}, role: blockcore.RoleFile, depth: 1})
	if err != nil {
		return nil, err
	}
	added := map[*blockcore.Node]*madeNode{}
	var n *blockcore.Node
	err = p.graph.Update(context.Background(), "open", func(tx *blockcore.Tx) (err error) {
		n, err = m.add(tx, true, added)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, m.close(p))
	}
	return n, nil
}
