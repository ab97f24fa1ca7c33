package nbd

import (
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// lane is what the connections on one AioContext share, so that an idle connection costs next to
// nothing. Owned by the context.
type lane struct {
	exports  int // that are on the context; guarded by the server's mu
	ctx      *blockcore.AioContext
	requests []*request // free
	slabs    []*slab    // free
	iovecs   [iovecsMax]unix.Iovec
	message  unix.Msghdr
	last     *Conn // that has parsed
	streak   int   // turns in which only last has
}

const (
	// iovecsMax is how many pieces one system call sends; the kernel takes 1024.
	iovecsMax = 256
	// requestsFreeMax bounds the free requests that are kept.
	requestsFreeMax = 1024
	// slabsFreeMax bounds the free slabs that are kept with their memory.
	slabsFreeMax = 2
)

func newLane(ctx *blockcore.AioContext) *lane { return &lane{ctx: ctx} }

func (l *lane) request() *request {
	if last := len(l.requests) - 1; last >= 0 {
		q := l.requests[last]
		l.requests = l.requests[:last]
		return q
	}
	return &request{}
}

func (l *lane) putRequest(q *request) {
	*q = request{}
	if len(l.requests) < requestsFreeMax {
		l.requests = append(l.requests, q)
	}
}

// slabSize is the memory of one slab, in bytes: it takes a full batch of small writes, and stays in the
// processor's second-level cache.
const slabSize = 256 << 10

// slab is memory that a connection receives into. Requests whose payload lies in it hold it
// until they are done. Owned by the context.
type slab struct {
	memory []byte
	refs   int
}

func (l *lane) slab() *slab {
	if last := len(l.slabs) - 1; last >= 0 {
		s := l.slabs[last]
		l.slabs = l.slabs[:last]
		s.refs = 1
		return s
	}
	return &slab{memory: l.ctx.Buffers().Get(slabSize), refs: 1}
}

// release gives the memory of free slabs back.
func (l *lane) release() {
	for _, s := range l.slabs {
		l.ctx.Buffers().Put(s.memory)
	}
	l.slabs = nil
}

// drop gives up one hold on s.
func (l *lane) drop(s *slab) {
	s.refs--
	if s.refs > 0 {
		return
	}
	if len(l.slabs) < slabsFreeMax {
		l.slabs = append(l.slabs, s)
		return
	}
	l.ctx.Buffers().Put(s.memory)
	s.memory = nil
}

// burst is how many requests c may start in this turn of the loop. Their I/O is submitted, and their replies sent,
// together: a longer burst costs fewer system calls and wakes the client less often, a shorter one lets
// client and server work at the same time. Where other connections are busy they fill that time
// (docs/performance.md has the figures).
func (l *lane) burst(c *Conn) int {
	if l.last != c {
		l.last, l.streak = c, 0
	}
	if l.streak < companyMemory {
		l.streak++
		return burstInCompany
	}
	return burstAlone
}

const (
	burstAlone     = 16
	burstInCompany = 32
	// companyMemory is after how many turns in a row with one connection only that one counts as alone.
	companyMemory = 8
)
