package nbd

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/blockcore"
)

// request is one request of a client, from its header to its reply. Owned by the context.
type request struct {
	conn   *Conn
	header header

	payload   []byte
	slab      *slab // holds payload, or
	ownBuffer bool  // payload is a buffer of its own,
	filled    int   // of which this much has been received

	ticket  blockcore.Ticket
	charge  int64  // bytes reserved for it
	refused Errno  // it is not to be executed,
	reason  string // for this reason
}

// commandRule is what the protocol says of one command. NBD proto.md, "Request types".
type commandRule struct {
	known     bool
	flags     CommandFlags // allowed besides FUA
	changes   bool         // refused on a read-only export
	ranged    bool         // offset and length are a range of the export
	pastEnd   Errno
	lengthMax uint64 // 0 = as the header allows
	limited   bool   // by throttle groups,
	direction blockcore.ThrottleDirection
	perform   func(*request, *blockcore.Task) error
}

// commandRules is indexed by Command.
var commandRules [CmdResize + 1]commandRule

// The table is filled here because its functions refer to it in turn.
func init() {
	commandRules = [CmdResize + 1]commandRule{
		CmdRead:        {known: true, limited: true, direction: blockcore.ThrottleRead, flags: CmdFlagDF, ranged: true, pastEnd: EInval, lengthMax: payloadMax, perform: (*request).read},
		CmdWrite:       {known: true, limited: true, direction: blockcore.ThrottleWrite, flags: CmdFlagPayloadLen, changes: true, ranged: true, pastEnd: ENoSpc, lengthMax: payloadMax, perform: (*request).write},
		CmdDisc:        {known: true},
		CmdFlush:       {known: true, perform: (*request).flush},
		CmdTrim:        {known: true, limited: true, direction: blockcore.ThrottleWrite, changes: true, ranged: true, pastEnd: EInval, perform: (*request).trim},
		CmdCache:       {known: true, ranged: true, pastEnd: EInval, perform: (*request).cache},
		CmdWriteZeroes: {known: true, limited: true, direction: blockcore.ThrottleWrite, flags: CmdFlagNoHole | CmdFlagFastZero, changes: true, ranged: true, pastEnd: ENoSpc, perform: (*request).writeZeroes},
		CmdBlockStatus: {known: true, flags: CmdFlagReqOne | CmdFlagPayloadLen, ranged: true, pastEnd: EInval, perform: (*request).blockStatus},
	}
}

// refuse notes why q is not executed; the first reason counts.
func (q *request) refuse(e Errno, format string, args ...any) {
	if q.refused == 0 {
		q.refused, q.reason = e, fmt.Sprintf(format, args...)
	}
}

// admitted reports whether q goes to the block layer.
func (q *request) admitted() bool { return q.refused == 0 && q.header.command != CmdDisc }

// check finds what is wrong with a request, in the order: unknown command, flags, read-only, size, range,
// alignment.
func (q *request) check(c *Conn) {
	h := &q.header
	if int(h.command) >= len(commandRules) || !commandRules[h.command].known {
		q.refuse(EInval, "%v is not supported", h.command)
		return
	}
	if h.command == CmdDisc {
		return // it has no reply, so there is no way to refuse it
	}
	rule := &commandRules[h.command]
	if c.export.retired {
		q.refuse(EShutdown, "export %s is being removed", shown(c.export.Name()))
	}
	q.checkFlags(c, rule)
	if rule.changes && c.agreed.flags&FlagReadOnly != 0 {
		q.refuse(EPerm, "export is read-only")
	}
	if rule.lengthMax != 0 && h.length > rule.lengthMax {
		q.refuse(EInval, "length %d is above the limit of %d", h.length, rule.lengthMax)
	}
	if rule.ranged {
		q.checkRange(c, rule)
	}
}

func (q *request) checkFlags(c *Conn, rule *commandRule) {
	h := &q.header
	allowed := rule.flags | CmdFlagFUA
	if !c.agreed.extended {
		allowed &^= CmdFlagPayloadLen
	}
	if c.agreed.flags&FlagSendDF == 0 {
		allowed &^= CmdFlagDF
	}
	if c.agreed.flags&FlagSendFastZero == 0 {
		allowed &^= CmdFlagFastZero
	}
	if h.command == CmdBlockStatus && c.agreed.flags&FlagBlockStatusPayload == 0 {
		allowed &^= CmdFlagPayloadLen
	}
	if bad := h.flags &^ allowed; bad != 0 {
		q.refuse(EInval, "%v does not take the flags %v", h.command, bad)
	}
	if h.command == CmdBlockStatus && h.flags&CmdFlagPayloadLen != 0 && h.length > statusPayloadMax {
		q.refuse(EInval, "BLOCK_STATUS with a payload of %d bytes", h.length)
	}
	if c.agreed.extended && h.command == CmdWrite && h.flags&CmdFlagPayloadLen == 0 {
		q.refuse(EInval, "WRITE with extended headers needs the flag PAYLOAD_LEN")
	}
}

// checkRange refuses what goes past the end, without overflow, and, from clients that know the block
// size, what is not aligned to it.
func (q *request) checkRange(c *Conn, rule *commandRule) {
	h := &q.header
	if h.command == CmdBlockStatus && h.flags&CmdFlagPayloadLen != 0 {
		// The length is that of the payload; the range is checked with it.
		if most := statusPayload(len(c.agreed.contexts)); h.length > most {
			q.refuse(EInval, "BLOCK_STATUS with a payload of %d bytes, %d name all contexts", h.length, most)
		}
		return
	}
	size := c.export.size()
	if h.offset > size || h.length > size-h.offset {
		q.refuse(rule.pastEnd, "offset %d, length %d goes past the end at %d", h.offset, h.length, size)
	}
	if c.unaligned(h.offset | h.length) {
		q.refuse(EInval, "offset %d, length %d is not a multiple of the minimum block size %d", h.offset, h.length, c.agreed.export.MinBlock)
	}
	if h.command == CmdBlockStatus {
		q.checkStatus(c)
	}
}

// unaligned reports whether a client that knows the minimum block size has not kept to it in one of the numbers that are or-ed to n.
func (c *Conn) unaligned(n uint64) bool {
	block := uint64(c.agreed.export.MinBlock)
	return c.agreed.blockSizes && block > 1 && n&(block-1) != 0
}

func (q *request) checkStatus(c *Conn) {
	if q.header.length == 0 {
		q.refuse(EInval, "BLOCK_STATUS of no bytes")
	}
	if len(c.agreed.contexts) == 0 {
		q.refuse(EInval, "no metadata context was negotiated")
	}
}

// cost is how many bytes q holds until its reply has left.
func (q *request) cost(c *Conn) int64 {
	if q.refused != 0 {
		return 0
	}
	h := &q.header
	switch h.command {
	case CmdRead, CmdWrite:
		return wholePages(int64(h.length))
	case CmdBlockStatus:
		if h.flags&CmdFlagReqOne == 0 {
			return c.statusCost(h)
		}
	}
	return 0
}

// pageBytes is the least memory that any payload takes: buffers are made of pages.
const pageBytes = 4096

// wholePages is the memory that n bytes of payload take. Counting the bytes alone would let a client that asks for single
// ones hold thousands of times what it is charged for.
func wholePages(n int64) int64 { return (n + pageBytes - 1) &^ (pageBytes - 1) }

// Run executes q and hands over its reply. It implements blockcore.Body.
//
// INVARIANT: q is in flight at the Root until its reply is in the outbox, and not until the client has taken it:
// a client that does not read holds up no drain.
func (q *request) Run(t *blockcore.Task) {
	c := q.conn
	switch {
	case q.refused != 0:
		c.stats.failed++
		q.countRefusal()
		c.replyError(q, q.refused, q.reason)
	case q.header.command == CmdDisc:
		c.endInput(CauseDisconnect, nil)
	default:
		root := c.export.root
		rule := &commandRules[q.header.command]
		q.ticket.Op, q.ticket.Range, q.ticket.Client = q.header.command.String(), q.bytes(), c
		q.ticket.Limited, q.ticket.Direction = rule.limited, rule.direction
		q.ticket.Changes, q.ticket.Orphaned = rule.changes, c.orphaned
		if !root.Begin(t, &q.ticket) {
			c.export.post(func() { c.ctx.Spawn(q) }) // the export has moved, and c with it
			return
		}
		if _, cut := c.evictedFor(); cut {
			// Nobody wants it any more.
		} else if err := rule.perform(q, t); err != nil {
			q.failed(err)
		}
		root.End(t, &q.ticket)
	}
	c.finish(q)
}

// countRefusal has the node below count a request that it will not see, unless the export is about to leave it.
func (q *request) countRefusal() {
	if q.conn.export.retired {
		return
	}
	edge := q.conn.export.root.Edge()
	switch q.header.command {
	case CmdRead:
		edge.Refused(blockcore.KindRead)
	case CmdWrite, CmdWriteZeroes:
		edge.Refused(blockcore.KindWrite)
	case CmdFlush:
		edge.Refused(blockcore.KindFlush)
	case CmdTrim:
		edge.Refused(blockcore.KindDiscard)
	}
}

// clientError is a fault of the request found while it is executed.
type clientError struct {
	errno  Errno
	reason string
}

func (e *clientError) Error() string { return e.reason }

// failed answers q with an error.
func (q *request) failed(err error) {
	c := q.conn
	c.stats.failed++
	var ce *clientError
	if errors.As(err, &ce) {
		c.replyError(q, ce.errno, ce.reason)
		return
	}
	c.replyError(q, wireErrno(err, q.header.flags), errorText(err))
	if q.header.flags&CmdFlagFastZero != 0 && errors.Is(err, syscall.ENOTSUP) {
		return // an answer, not a fault
	}
	q.report(err)
}

// failedAt ends an answer that has begun with an error at an offset of the export.
func (q *request) failedAt(err error, offset uint64) {
	q.conn.stats.failed++
	q.conn.replyErrorAt(q, wireErrno(err, q.header.flags), errorText(err), offset)
	q.report(err)
}

// report tells that the backend has failed.
func (q *request) report(err error) {
	c := q.conn
	if _, cut := c.evictedFor(); cut && errors.Is(err, blockcore.ErrCancelled) {
		return // which is no fault, and was wanted
	}
	c.server.emit(RequestFailed{Export: c.export.Name(), ID: c.id, Command: q.header.command,
		Offset: q.header.offset, Length: q.header.length, Err: err})
}

// finish ends q; its reply is in the outbox.
func (c *Conn) finish(q *request) {
	switch {
	case q.slab != nil:
		c.lane.drop(q.slab)
		c.putSlab()
	case q.ownBuffer:
		c.ctx.Buffers().Put(q.payload)
	}
	charge := q.charge
	c.lane.putRequest(q)
	c.inFlight--
	if charge > 0 {
		c.unhold(charge)
	} else {
		c.unblock()
	}
	if c.ended {
		c.ctx.AtTurnEnd(c)
	}
}
