package nbd

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"nbd-dataplane/blockcore"
)

// ExportOptions describe an export.
type ExportOptions struct {
	Name        string
	Description string
	Root        *blockcore.Root // the export owns it from now on
	Writable    bool
	// Shared is the number of clients the export is meant for; 1 means that MULTI_CONN is not offered.
	Shared int
	// MinBlock is the minimum block size that clients are told and, having asked, are held to; 0 = 1. What the node
	// below needs is no concern of theirs: requests are widened to it.
	MinBlock uint32
	// WriteThrough makes every write durable before it is answered, whatever the client asks.
	WriteThrough bool
	// AllocationDepth offers the context qemu:allocation-depth.
	AllocationDepth bool
	TLSOnly         bool
	Authz           Authorizer // nil = everybody the server lets in
}

// Export offers one node to clients under a name.
//
// Analogous to QEMU's NBDExport.
type Export struct {
	// Immutable.
	options ExportOptions
	root    *blockcore.Root
	ctx     *blockcore.AioContext
	budget  *budget
	lane    *lane

	// Guarded by mu.
	mu    sync.Mutex
	conns map[*Conn]struct{}
	gone  bool // no connection may be added
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
	limits := n.Limits()
	return exportInfo{
		Name:           e.options.Name,
		Description:    e.options.Description,
		Size:           uint64(n.Size()),
		Flags:          e.flags(),
		MinBlock:       e.options.MinBlock,
		PreferredBlock: preferredBlock(limits, e.options.MinBlock),
		MaxPayload:     payloadAdvertised,
		Contexts:       contexts,
		TLSOnly:        e.options.TLSOnly,
		Generation:     uint64(n.Size()) ^ uint64(e.flags())<<48,
	}
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

// add takes c in, unless the export is going.
func (e *Export) add(c *Conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
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
}

// close lets no connection in any more and returns those that are there.
func (e *Export) close() []*Conn {
	e.mu.Lock()
	e.gone = true
	e.mu.Unlock()
	return e.connections()
}

// connections returns those that are there.
func (e *Export) connections() []*Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.conns))
}
