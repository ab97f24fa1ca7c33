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
	ctx      *AioContext
	driver   Driver
	limits   Limits
	features Features
	can      capabilities

	// Owned by the context.
	writes rangeLocks // of nodes with an alignment only

	// Guarded by graph.mu.
	users int // Edges that lead here

	// Safe from anywhere.
	inFlight atomic.Int64 // requests that have entered the driver and not left it
}

// capabilities are a driver's optional interfaces; nil where it lacks one.
type capabilities struct {
	writer     Writer
	flusher    Flusher
	zeroer     Zeroer
	discarder  Discarder
	mapper     Mapper
	prefetcher Prefetcher
	teller     CacheTeller
}

func newNode(g *Graph, o NodeOptions) *Node {
	n := &Node{graph: g, name: o.Name, ctx: o.Context, driver: o.Driver, limits: Limits{Align: 1}}
	d := o.Driver
	n.can.writer, _ = d.(Writer)
	n.can.flusher, _ = d.(Flusher)
	n.can.zeroer, _ = d.(Zeroer)
	n.can.discarder, _ = d.(Discarder)
	n.can.mapper, _ = d.(Mapper)
	n.can.prefetcher, _ = d.(Prefetcher)
	n.can.teller, _ = d.(CacheTeller)
	if l, ok := d.(Limiter); ok {
		n.limits = l.Limits()
	}
	if f, ok := d.(Featurer); ok {
		n.features = f.Features()
	}
	return n
}

// alignMax is the largest alignment a node may ask for: NBD's largest minimum block size.
const alignMax = 64 << 10

func (n *Node) checkLimits() error {
	align := n.limits.Align
	if align < 1 || align > alignMax || bits.OnesCount64(uint64(align)) != 1 {
		return fmt.Errorf("node %s: alignment of %d bytes is not a power of two up to %d", n.name, align, alignMax)
	}
	if limit := n.limits.TransferMax; limit < 0 || limit%align != 0 {
		return fmt.Errorf("node %s: longest transfer of %d bytes is not a multiple of its alignment %d", n.name, limit, align)
	}
	if n.driver.Size()%align != 0 {
		return fmt.Errorf("node %s: size of %d bytes is not a multiple of its alignment %d", n.name, n.driver.Size(), align)
	}
	return nil
}

// Name returns the node-name. Safe from anywhere.
func (n *Node) Name() string { return n.name }

// Context returns the AioContext on which the driver runs. Safe from anywhere.
func (n *Node) Context() *AioContext { return n.ctx }

// Size returns the length in bytes. Safe from anywhere.
func (n *Node) Size() int64 { return n.driver.Size() }

// Limits returns what requests the driver takes. Safe from anywhere.
func (n *Node) Limits() Limits { return n.limits }

// Features returns what the driver tells of itself. Safe from anywhere.
func (n *Node) Features() Features { return n.features }

// Writable reports whether the driver can be written. Safe from anywhere.
func (n *Node) Writable() bool { return n.can.writer != nil && !n.features.ReadOnly }

// InFlight returns the number of requests in the driver now. Safe from anywhere.
func (n *Node) InFlight() int64 { return n.inFlight.Load() }

func (n *Node) begin() { n.inFlight.Add(1) }

func (n *Node) end() {
	left := n.inFlight.Add(-1)
	if check.Enabled {
		check.Invariant(left >= 0, "node %s: more requests ended than begun", n.name)
	}
}

// close flushes and closes the driver.
func (n *Node) close(t *Task) error {
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
