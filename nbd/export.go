package nbd

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"nbd-dataplane/blockcore"
)

// ExportOptions describe an export.
type ExportOptions struct {
	Name        string
	Description string
	// Node is what is exported. It may be replaced under the export later on.
	Node     *blockcore.Node
	Writable bool
	// Shared is the number of clients the export is meant for; 1 means that MULTI_CONN is not offered.
	Shared int
	// MinBlock is the minimum block size that clients are told and, having asked, are held to; 0 = 1. What the node
	// below needs is no concern of theirs: requests are widened to it.
	MinBlock uint32
	// WriteThrough makes every write durable before it is answered, whatever the client asks.
	WriteThrough bool
	// AllocationDepth offers the context qemu:allocation-depth.
	AllocationDepth bool
	// Bitmaps are offered as contexts, and nobody may change them meanwhile.
	Bitmaps []*blockcore.Bitmap
	TLSOnly bool
	Authz   Authorizer // nil = everybody the server lets in
	// FixedContext keeps the export on the AioContext that it begins on.
	FixedContext bool
	// Permissions that the export keeps from other users of the node; QEMU's exports unshare PermResize, ours
	// live through a resize.
	Unshared blockcore.Permissions
	// AllowLess lets an export of a name come back with a smaller size or fewer abilities than clients have seen under
	// it. QEMU aborts when it reconnects to less.
	AllowLess bool
	// Farewell is what its clients meet when it goes and nobody says otherwise. At the stop of the server a pause is a restart.
	Farewell Farewell
}

// Export offers one node to clients under a name.
//
// Analogous to QEMU's NBDExport.
type Export struct {
	// Immutable.
	options ExportOptions
	graph   *blockcore.Graph
	server  *Server
	root    *blockcore.Root // set once, before the first client
	budget  *budget
	bitmaps []*blockcore.Bitmap // taken

	// Owned by the context.
	lane    *lane
	still   bool             // a drained section covers the export: requests stay unparsed
	retired bool             // requests are answered with ESHUTDOWN
	parked  bool             // the node is given up; nothing is read
	looking *blockcore.Timer // for clients that are gone; nil = there are no connections

	// Guarded by mu.
	mu       sync.Mutex
	conns    map[*Conn]struct{}
	expected int           // clients that are told that they have the export, and are no connections yet
	gone     bool          // no connection may be added
	between  bool          // has left one context and not been taken up by the other one yet
	putOff   []func()      // posted meanwhile, in order
	deserted chan struct{} // closed when gone and the last connection has left

	// Safe from anywhere.
	ctx      atomic.Pointer[blockcore.AioContext]
	heir     atomic.Pointer[Export] // that has the connections now
	rootless atomic.Bool            // the root is closed already
	once     sync.Once              // letGo
	unlist   sync.Once              // leaveBitmaps
}

// Name returns the export's name.
func (e *Export) Name() string { return e.options.Name }

// info is what the handshake may tell.
func (e *Export) info() exportInfo {
	n := e.root.Node()
	contexts := []string{ContextAllocation}
	if e.options.AllocationDepth {
		contexts = append(contexts, ContextAllocationDepth)
	}
	contexts = e.bitmapContexts(contexts)
	limits := n.Limits()
	return exportInfo{
		Name:           e.options.Name,
		Description:    e.options.Description,
		Size:           e.size(),
		Flags:          e.flags(),
		MinBlock:       e.options.MinBlock,
		PreferredBlock: preferredBlock(limits, e.options.MinBlock),
		MaxPayload:     payloadAdvertised,
		Contexts:       contexts,
		TLSOnly:        e.options.TLSOnly,
		Generation:     e.size() ^ uint64(e.flags())<<48,
		Export:         e,
	}
}

// offer is what of it is remembered.
func (e *Export) offer() offer {
	return offer{e.size(), e.flags(), e.options.MinBlock}.remembered()
}

// size is what clients see of the node below, which may have been given any size: whole minimum blocks, as QEMU's client insists on.
func (e *Export) size() uint64 {
	return uint64(e.root.Node().Size()) &^ (uint64(max(e.options.MinBlock, 1)) - 1)
}

// preferredBlock returns a valid preferred block size: a power of two of 4096 bytes at least.
func preferredBlock(l blockcore.Limits, minBlock uint32) uint32 {
	p := uint32(preferredBlockDefault)
	for int64(p) < max(l.Align, l.Preferred, int64(minBlock)) && p < payloadAdvertised {
		p *= 2
	}
	return p
}

// flags are the truth about the node below. NBD proto.md, "Transmission flags".
func (e *Export) flags() TransmissionFlags {
	features := e.root.Node().Features()
	f := FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagSendCache
	if features.Rotational {
		f |= FlagRotational
	}
	// All connections of an export share one node, so what one has had acknowledged is seen, and
	// flushed, by all.
	if e.options.Shared != 1 {
		f |= FlagCanMultiConn
	}
	if !e.options.Writable {
		return f | FlagReadOnly
	}
	f |= FlagSendTrim | FlagSendWriteZeroes
	if features.FastZero {
		f |= FlagSendFastZero
	}
	return f
}

// expect counts a client in that is about to be told that it has the export, until add or unexpect. It reports false when the export
// is going.
func (e *Export) expect() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return false
	}
	e.expected++
	return true
}

// unexpect counts a client out that does not come.
func (e *Export) unexpect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expected--
}

// add takes c in, which was expected, unless the export is going.
func (e *Export) add(c *Conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expected--
	if e.gone {
		return fmt.Errorf("export %q is being removed", e.options.Name)
	}
	e.conns[c] = struct{}{}
	return nil
}

func (e *Export) remove(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
	e.checkDeserted()
}

// close lets no connection in any more.
func (e *Export) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone = true
	e.checkDeserted()
}

// checkDeserted tells those who wait for the last connection of an export that is going. e.mu is held.
func (e *Export) checkDeserted() {
	if !e.gone || len(e.conns) > 0 {
		return
	}
	select {
	case <-e.deserted:
	default:
		close(e.deserted)
	}
}

// post has fn run on the loop that the export is on when it runs; between two loops it waits for the one that takes the
// export up, which is the old one again when the new one is closed. It reports false, and drops fn, when the export's loop is closed. Safe from anywhere.
func (e *Export) post(fn func()) bool {
	for {
		if e.postpone(fn) {
			return true
		}
		ctx := e.ctx.Load()
		if ctx.Post(func() { e.run(ctx, fn) }) {
			return true
		}
		if e.isOn(ctx) {
			next := e.heir.Load()
			return next != nil && next.post(fn)
		}
		// That loop was closed after the export had left it, or before it came.
	}
}

// postpone keeps fn for the loop that the export is going to be on, when it is between two.
func (e *Export) postpone(fn func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.between {
		e.putOff = append(e.putOff, fn)
	}
	return e.between
}

// isOn reports whether ctx is the export's, and not on the way from one to another.
func (e *Export) isOn(ctx *blockcore.AioContext) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.between && e.ctx.Load() == ctx
}

// setOff has what is posted from now on wait for land.
func (e *Export) setOff() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.between = true
}

// isBetween reports whether the export is on no loop.
func (e *Export) isBetween() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.between
}

// land does on the loop that the export has come to what was posted on its way.
func (e *Export) land() {
	e.mu.Lock()
	putOff := e.putOff
	e.between, e.putOff = false, nil
	e.mu.Unlock()
	e.lookLater()
	for _, fn := range putOff {
		if next := e.heir.Load(); next != nil {
			next.post(fn)
		} else {
			fn()
		}
	}
}

// run is fn arriving on the loop of ctx.
func (e *Export) run(ctx *blockcore.AioContext, fn func()) {
	next := e.heir.Load()
	switch {
	case next != nil:
		next.post(fn)
	case !e.isOn(ctx):
		e.post(fn) // it has moved meanwhile
	default:
		fn()
	}
}

// connections returns those that are there, in the order in which they came.
func (e *Export) connections() []*Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.SortedFunc(maps.Keys(e.conns), byComing)
}

// byComing orders connections by when they came.
func byComing(a, b *Conn) int { return cmp.Compare(a.id, b.id) }
