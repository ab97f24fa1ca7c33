package blockcore

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"nbd-dataplane/internal/check"
)

// Node is one layer of storage in the graph: a driver and the requests in flight in it. I/O goes through the
// Edges that lead to it.
//
// Analogous to QEMU's BlockDriverState.
type Node struct {
	// Immutable.
	graph    *Graph
	name     string
	driver   Driver
	can      capabilities
	implicit bool // made for its parent, and gone with it
	readOnly bool // whatever the driver can

	// Changed only by a Tx.
	parents  []*Edge
	children []*Edge
	quiesce  int  // sections that cover the node, itself or through a child of it
	told     bool // that the loop was told to be still

	// Owned by the context.
	writes   RangeLocks // of nodes with an alignment, and while somebody holds a range
	closed   bool       // the driver is closed, or about to be
	still    bool       // a section covers the node: what is in flight ends, and nothing begins by itself
	chores   choreList
	errands  ticketList // what it does for no request
	holds    int        // ranges that are held, or are going to be
	loose    int        // writes in the driver that have no lock of their range
	loosened WaitQueue  // of those who are going to hold one, for the end of these

	// Each field says whose it is.
	account account

	// Safe from anywhere.
	ctx      atomic.Pointer[AioContext]
	facts    atomic.Pointer[facts]
	inFlight atomic.Int64            // requests that have entered the driver and not left it
	parting  atomic.Bool             // it was removed, and is going to be closed
	telling  atomic.Int32            // quiesce steps that the loop has not taken yet
	bitmaps  atomic.Pointer[Bitmaps] // nil = nobody has asked for them
}

// facts are what a driver says of itself; those of a filter change with what is below it.
type facts struct {
	limits   Limits
	features Features
}

// capabilities are a driver's optional interfaces, nil where it lacks one, and what they say once for all.
type capabilities struct {
	writer     Writer
	flusher    Flusher
	keeps      bool // something that a flush makes durable
	zeroer     Zeroer
	compressor Compressor
	discarder  Discarder
	mapper     Mapper
	prefetcher Prefetcher
	teller     CacheTeller
	limiter    Limiter
	featurer   Featurer
	resizer    Resizer
	extender   Extender
	reserver   Reserver
	quiescer   Quiescer
	follower   ContextFollower
	permitter  ChildPermitter
	checker    ChildChecker
	reopener   Reopener
	snapshots  Snapshotter
	stretcher  Stretcher
	sender     CacheSender
	counter    DiscardCounter
	locker     Locker
	mender     Mender
	canceller  Canceller
}

func newNode(g *Graph, o NodeOptions) *Node {
	n := &Node{graph: g, name: o.Name, driver: o.Driver, implicit: o.Implicit, readOnly: o.ReadOnly}
	n.ctx.Store(o.Context)
	d := o.Driver
	n.can.writer, _ = d.(Writer)
	n.can.flusher, _ = d.(Flusher)
	forgetful, ok := d.(Forgetful)
	n.can.keeps = n.can.flusher != nil && !(ok && forgetful.Forgets())
	n.can.zeroer, _ = d.(Zeroer)
	n.can.compressor, _ = d.(Compressor)
	n.can.discarder, _ = d.(Discarder)
	n.can.mapper, _ = d.(Mapper)
	n.can.prefetcher, _ = d.(Prefetcher)
	n.can.teller, _ = d.(CacheTeller)
	n.can.limiter, _ = d.(Limiter)
	n.can.featurer, _ = d.(Featurer)
	n.can.resizer, _ = d.(Resizer)
	n.can.extender, _ = d.(Extender)
	n.can.reserver, _ = d.(Reserver)
	n.can.quiescer, _ = d.(Quiescer)
	n.can.follower, _ = d.(ContextFollower)
	n.can.permitter, _ = d.(ChildPermitter)
	n.can.checker, _ = d.(ChildChecker)
	n.can.reopener, _ = d.(Reopener)
	n.can.snapshots, _ = d.(Snapshotter)
	n.can.stretcher, _ = d.(Stretcher)
	n.can.sender, _ = d.(CacheSender)
	n.can.counter, _ = d.(DiscardCounter)
	n.can.locker, _ = d.(Locker)
	n.can.mender, _ = d.(Mender)
	n.can.canceller, _ = d.(Canceller)
	return n
}

// learn asks the driver what it takes and what it can.
func (n *Node) learn() error {
	if n.can.checker != nil {
		if err := n.can.checker.CheckChildren(); err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
	}
	f := &facts{limits: Limits{Align: 1}}
	if n.can.limiter != nil {
		f.limits = n.can.limiter.Limits()
	}
	if n.can.featurer != nil {
		f.features = n.can.featurer.Features()
	}
	f.features.ReadOnly = f.features.ReadOnly || n.readOnly
	if err := n.checkLimits(f.limits); err != nil {
		return err
	}
	n.facts.Store(f)
	return nil
}

// alignMax is the largest alignment a node may ask for: NBD's largest minimum block size.
const alignMax = 64 << 10

func (n *Node) checkLimits(l Limits) error {
	if l.Align < 1 || l.Align > alignMax || bits.OnesCount64(uint64(l.Align)) != 1 {
		return fmt.Errorf("node %s: alignment of %d bytes is not a power of two up to %d", n.name, l.Align, alignMax)
	}
	if l.TransferMax < 0 || l.TransferMax%l.Align != 0 {
		return fmt.Errorf("node %s: longest transfer of %d bytes is not a multiple of its alignment %d", n.name, l.TransferMax, l.Align)
	}
	if n.driver.Size()%l.Align != 0 {
		return fmt.Errorf("node %s: size of %d bytes is not a multiple of its alignment %d", n.name, n.driver.Size(), l.Align)
	}
	return nil
}

// Name returns the node-name. Safe from anywhere.
func (n *Node) Name() string { return n.name }

// Driver returns what the node was made of, for owners that know its type. I/O goes through Edges. Safe from anywhere.
func (n *Node) Driver() Driver { return n.driver }

// Context returns the AioContext on which the driver runs. It changes only inside of a drained section. Safe from
// anywhere.
func (n *Node) Context() *AioContext { return n.ctx.Load() }

// Size returns the length in bytes. Safe from anywhere.
func (n *Node) Size() int64 { return n.driver.Size() }

// Limits returns what requests the driver takes. Safe from anywhere.
func (n *Node) Limits() Limits { return n.facts.Load().limits }

// Features returns what the driver tells of itself. Safe from anywhere.
func (n *Node) Features() Features { return n.facts.Load().features }

// Implicit reports whether the node was made for its parent and goes with it. Safe from anywhere.
func (n *Node) Implicit() bool { return n.implicit }

// Writable reports whether the driver can be written. Safe from anywhere.
func (n *Node) Writable() bool { return n.can.writer != nil && !n.Features().ReadOnly }

// Compresses reports whether the driver is a Compressor, be it that it cannot compress as things are. Safe from anywhere.
func (n *Node) Compresses() bool { return n.can.compressor != nil }

// CompressedUnit returns how many bytes the driver compresses together; 0 = it cannot compress. Safe from anywhere.
func (n *Node) CompressedUnit() int64 {
	if n.can.compressor == nil {
		return 0
	}
	return n.can.compressor.CompressedUnit()
}

// InFlight returns the number of requests in the driver now. Safe from anywhere.
func (n *Node) InFlight() int64 { return n.inFlight.Load() }

func (n *Node) align() int64 { return n.facts.Load().limits.Align }

// begin counts a request in and notes where t is.
func (n *Node) begin(t *Task) (above *Node) {
	n.inFlight.Add(1)
	above, t.node = t.node, n
	return above
}

// end counts a request out. Its result has been handed over: t returns to the node above.
func (n *Node) end(t *Task, above *Node) {
	t.node = above
	n.release()
}

// release takes one off the count.
func (n *Node) release() {
	left := n.inFlight.Add(-1)
	if check.Enabled {
		check.Invariant(left >= 0, "node %s: more requests ended than begun", n.name)
	}
	if left == 0 && n.still {
		n.graph.bell.ring()
	}
}

// hush is the part of a quiesce step that concerns n. On the loop.
func (n *Node) hush() {
	n.still = true
	n.chores.stop()
	if n.can.quiescer != nil {
		n.can.quiescer.Quiesce()
	}
}

// stir undoes hush. On the loop.
func (n *Node) stir() {
	n.still = false
	if n.can.quiescer != nil {
		n.can.quiescer.Resume()
	}
	n.chores.resume()
}

// Closing reports whether the node was removed, and its driver, or that of a node above it that went with it, is being flushed for the last time or closed.
// Safe from anywhere.
func (n *Node) Closing() bool { return n.parting.Load() }

// close flushes and closes the driver.
func (n *Node) close(t *Task) error {
	n.closed = true
	check.Invariant(n.inFlight.Load() == 0, "node %s is closed with %d requests in flight", n.name, n.inFlight.Load())
	var errFlush error
	if n.can.flusher != nil && n.Writable() {
		errFlush = n.can.flusher.Flush(t)
	}
	if errFlush != nil {
		errFlush = fmt.Errorf("flush node %s before closing: %w", n.name, errFlush)
	}
	return errors.Join(errFlush, n.driver.Close(t))
}
