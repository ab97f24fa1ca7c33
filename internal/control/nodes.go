package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// opened is what is remembered of a node that was opened here.
type opened struct {
	driver  string
	options *Opening
}

// blockdevAdd makes a node, and those below it that are described with it.
func (p *Plane) blockdevAdd(ctx context.Context, call *qmp.Call) (any, error) {
	return nil, p.AddBlockdev(ctx, call.Arguments)
}

// AddBlockdev is blockdev-add, for the command line too.
func (p *Plane) AddBlockdev(ctx context.Context, v qmp.Value) error {
	_, err := p.AddNode(ctx, v, nil)
	return bare(err)
}

// AddNode makes a node like blockdev-add. loop runs it and those that are made with it; nil = the main one.
func (p *Plane) AddNode(ctx context.Context, v qmp.Value, loop *blockcore.AioContext) (*blockcore.Node, error) {
	m, err := p.openAs(v, &Opening{plane: p, context: loop})
	if err != nil {
		return nil, err
	}
	if m.opening.NodeName == "" { // its description was broken, and its driver did not mind
		return nil, errors.Join(errNameless, m.close(p))
	}
	added := map[*blockcore.Node]*madeNode{}
	var top *blockcore.Node
	err = p.graph.Update(ctx, "blockdev-add "+m.opening.NodeName, func(tx *blockcore.Tx) (err error) {
		top, err = m.add(tx, false, added)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, m.close(p))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owned[top.Name()] = top
	for n, m := range added {
		p.opened[n] = &opened{driver: m.opening.Driver, options: m.opening}
	}
	return top, nil
}

type nodeNameArgs struct {
	NodeName string `qmp:"node-name"`
}

// blockdevDel removes a node that blockdev-add has made.
func (p *Plane) blockdevDel(ctx context.Context, _ *qmp.Call, a *nodeNameArgs) (any, error) {
	n := p.graph.Node(a.NodeName)
	if n == nil {
		return nil, qmp.Errorf("Failed to find node with node-name='%s'", a.NodeName)
	}
	if owner := rootOf(n); owner != nil {
		return nil, inUse("Node %s is in use", a.NodeName)
	}
	if err := busy(n); err != nil {
		return nil, err
	}
	if !p.owns(n) {
		return nil, qmp.Errorf("Node %s is not owned by the monitor", a.NodeName)
	}
	if len(n.Parents()) > 0 {
		return nil, inUse("Block device %s is in use", a.NodeName)
	}
	err := p.graph.Update(ctx, "blockdev-del "+a.NodeName, func(tx *blockcore.Tx) error { return tx.RemoveNode(n) })
	if p.graph.Node(a.NodeName) != n {
		p.forget()
	}
	return nil, err
}

func (p *Plane) owns(n *blockcore.Node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owned[n.Name()] == n
}

// rootOf returns an owner that uses n itself.
func rootOf(n *blockcore.Node) *blockcore.Root {
	for _, e := range n.Parents() {
		if _, r := e.User(); r != nil {
			return r
		}
	}
	return nil
}

// forget drops what is remembered of nodes that are gone.
func (p *Plane) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	alive := map[*blockcore.Node]bool{} // looked at under the lock: a node that is new is entered under it after that
	for _, n := range p.graph.Nodes() {
		alive[n] = true
	}
	for name, n := range p.owned {
		if !alive[n] {
			delete(p.owned, name)
		}
	}
	for n := range p.opened {
		if !alive[n] {
			delete(p.opened, n)
		}
	}
}

// removeNodes takes all nodes away that nobody uses, and names the others.
func (p *Plane) removeNodes() error {
	errs := []error{p.graph.RemoveNodes()}
	p.forget()
	for _, n := range p.graph.Nodes() {
		errs = append(errs, fmt.Errorf("Node %s is in use", n.Name()))
	}
	return errors.Join(errs...)
}

type deviceArgs struct {
	Device   *string `qmp:"device"`
	NodeName *string `qmp:"node-name"`
}

// find takes the node by its name; there are no devices here.
func (a *deviceArgs) find(p *Plane) (*blockcore.Node, error) {
	device, name := "", ""
	if a.Device != nil {
		device = *a.Device
	}
	if a.NodeName != nil {
		name = *a.NodeName
	}
	if n := p.graph.Node(name); n != nil {
		return n, nil
	}
	return nil, qmp.Errorf("Cannot find device='%s' nor node-name='%s'", device, name)
}

// sizeMax is the largest size that QEMU's block layer takes: the last GiB of what a file offset can say is left out.
const sizeMax = math.MaxInt64 &^ (1<<30 - 1)

type resizeArgs struct {
	deviceArgs
	Size int64 `qmp:"size"`
}

// blockResize changes the size under live clients.
func (p *Plane) blockResize(ctx context.Context, _ *qmp.Call, a *resizeArgs) (any, error) {
	n, err := a.find(p)
	if err != nil {
		return nil, err
	}
	switch {
	case a.Size < 0:
		return nil, qmp.Expects("size", "a >0 size")
	case !n.Writable():
		return nil, qmp.Errorf("Image is read-only")
	case a.Size > sizeMax:
		return nil, qmp.Errorf("offset(%d) exceeds maximum(%d)", a.Size, sizeMax)
	}
	return nil, p.resize(ctx, "block_resize", n, a.Size)
}

// resize changes the size of a node in a section of its own, with QEMU's errors.
func (p *Plane) resize(ctx context.Context, why string, n *blockcore.Node, sizeBytes int64) error {
	err := p.during(ctx, p.flushedOptions(why+" "+n.Name(), n), func(tx *blockcore.Tx, d *blockcore.Drained) error {
		return tx.Resize(d, n, sizeBytes)
	})
	if bad, is := errors.AsType[*blockcore.BitmapInconsistent](err); is {
		return qmp.Errorf("%v", bad)
	}
	if refused := refusedBy(err, "Failed to update the image size"); refused != err {
		return refused
	}
	if f, is := errors.AsType[*blockcore.NodeFailure](err); is {
		return refusal(f.Err)
	}
	if errors.Is(err, syscall.ENOTSUP) {
		return qmp.Errorf("Image format driver does not support resize")
	}
	return err
}

// during changes the graph in a drained section of its own: drain, change, resume.
func (p *Plane) during(ctx context.Context, o blockcore.DrainOptions, change func(*blockcore.Tx, *blockcore.Drained) error) error {
	return p.graph.Change(ctx, o, change)
}

type setIOThreadArgs struct {
	NodeName string        `qmp:"node-name"`
	IOThread qmp.StrOrNull `qmp:"iothread"`
	Force    bool          `qmp:"force,optional"`
}

// setIOThread moves a node, and all that shares requests with it, to another event loop.
func (p *Plane) setIOThread(ctx context.Context, _ *qmp.Call, a *setIOThreadArgs) (any, error) {
	n := p.graph.Node(a.NodeName)
	if n == nil {
		return nil, qmp.Errorf("Failed to find node with node-name='%s'", a.NodeName)
	}
	if !a.Force && rootOf(n) != nil {
		return nil, qmp.Errorf("Node %s is associated with a BlockBackend and could be in use (use force=true to override this check)", a.NodeName)
	}
	to := p.options.Main
	if !a.IOThread.Null {
		o, err := p.holdIOThread(a.IOThread.Str)
		if err != nil {
			return nil, qmp.Errorf("Cannot find iothread %s", a.IOThread.Str)
		}
		defer p.letGo(o)
		to = o.loop
	}
	if n.Context() == to {
		return nil, nil
	}
	err := p.graph.Move(ctx, n, to)
	if _, fixed := errors.AsType[*nbd.FixedContextError](err); fixed {
		return nil, qmp.Errorf("Cannot change iothread of active block backend")
	}
	return nil, err
}

type insertArgs struct {
	NodeName string `qmp:"node-name"` // that goes above,
	Above    string `qmp:"above"`     // this one
}

// insertNode puts a filter above a node: whoever uses the node uses the filter from now on. The filter is a node whose child is
// the one below already, as blockdev-add made it.
func (p *Plane) insertNode(ctx context.Context, _ *qmp.Call, a *insertArgs) (any, error) {
	filter, err := p.node(a.NodeName)
	if err != nil {
		return nil, err
	}
	below, err := p.node(a.Above)
	if err != nil {
		return nil, err
	}
	return nil, p.during(ctx, p.drainOptions("insert "+filter.Name(), below, filter), func(tx *blockcore.Tx, d *blockcore.Drained) error {
		if !hasChild(filter, below) {
			return qmp.Errorf("Node '%s' is no child of '%s'; make the filter with file=%s first", below.Name(), filter.Name(), below.Name())
		}
		if !filter.Features().Filter { // a window or an image shows its users another disk
			return qmp.Errorf("Node '%s' is no filter and cannot be put above '%s'; x-blockdev-replace takes any node", filter.Name(), below.Name())
		}
		return tx.Replace(d, below, filter)
	})
}

func hasChild(n, child *blockcore.Node) bool {
	for _, e := range n.Children() {
		if e.Node() == child {
			return true
		}
	}
	return false
}

// removeNode takes a filter out: whoever uses it uses its child from now on. The filter stays, unused, until blockdev-del.
func (p *Plane) removeNode(ctx context.Context, _ *qmp.Call, a *nodeNameArgs) (any, error) {
	filter, err := p.node(a.NodeName)
	if err != nil {
		return nil, err
	}
	if !filter.Features().Filter || len(filter.Children()) != 1 {
		return nil, qmp.Errorf("Node '%s' is no filter and cannot be left out", a.NodeName)
	}
	below := filter.Children()[0].Node()
	return nil, p.during(ctx, p.drainOptions("remove "+filter.Name(), filter, below), func(tx *blockcore.Tx, d *blockcore.Drained) error {
		if !hasChild(filter, below) {
			return qmp.Errorf("Node '%s' has got another child meanwhile", a.NodeName)
		}
		return tx.Replace(d, filter, below)
	})
}

type replaceArgs struct {
	NodeName string `qmp:"node-name"`
	With     string `qmp:"with"`
}

// replaceNode has whoever uses a node use another one, of the same size.
func (p *Plane) replaceNode(ctx context.Context, _ *qmp.Call, a *replaceArgs) (any, error) {
	from, err := p.node(a.NodeName)
	if err != nil {
		return nil, err
	}
	to, err := p.node(a.With)
	if err != nil {
		return nil, err
	}
	o := p.flushedOptions(fmt.Sprintf("replace %s by %s", from.Name(), to.Name()), from, to)
	o.Flush = []*blockcore.Node{from} // what follows flushes the other one only
	o.Brief = true
	return nil, p.during(ctx, o, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		if from.Size() > to.Size() {
			return qmp.Errorf("Node '%s' has %d bytes and cannot take the place of '%s' with %d", to.Name(), to.Size(), from.Name(), from.Size())
		}
		return tx.Replace(d, from, to)
	})
}
