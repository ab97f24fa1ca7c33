package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// answer is what a client has learned from the reply to one request.
type answer struct {
	header  header
	errno   Errno // 0 = success
	text    string
	offsets []uint64         // of ERROR_OFFSET chunks
	data    []byte           // of a READ, with its holes as zeroes
	holes   int              // OFFSET_HOLE chunks
	pieces  int              // OFFSET_DATA chunks
	status  map[uint32][]run // by context
}

// pendingReply is a request whose reply is not complete, with what its reply must keep to.
type pendingReply struct {
	answer
	covered  []span // content of a READ that has come
	statusOf uint64 // length that a BLOCK_STATUS asks about
	ids      []uint32
	failed   bool
}

// span is a range of bytes of the export.
type span struct{ begin, end uint64 }

// replyReader parses the replies of one connection and holds them against all rules that replies have, whatever the
// request was. NBD proto.md, "Simple reply message", "Structured reply chunk message", "Structured reply types".
type replyReader struct {
	in      io.Reader
	style   replyStyle
	ids     []uint32 // of the contexts that are selected
	pending map[uint64]*pendingReply
}

// errTruncated: the stream ended inside a reply.
var errTruncated = errors.New("end of file inside a reply")

// next reads one message. It returns the answer that the message completes, or nil.
// The error is io.EOF when the stream ended between two messages.
func (r *replyReader) next() (*answer, error) {
	var head [extendedReply]byte
	n := map[replyStyle]int{styleSimple: simpleReply, styleStructured: structuredReply, styleExtended: extendedReply}[r.style]
	if _, err := io.ReadFull(r.in, head[:n]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errTruncated
		}
		return nil, err
	}
	if r.style == styleSimple {
		return r.simple(head[:])
	}
	return r.chunk(head[:])
}

// simple takes a simple reply (SR-1, SR-2, SR-4).
func (r *replyReader) simple(head []byte) (*answer, error) {
	if m := binary.BigEndian.Uint32(head); m != MagicSimpleReply {
		return nil, fmt.Errorf("SR-1: magic %#x", m)
	}
	p, err := r.find(binary.BigEndian.Uint64(head[8:]))
	if err != nil {
		return nil, err
	}
	p.errno = Errno(binary.BigEndian.Uint32(head[4:]))
	if p.errno != 0 {
		if err := knownErrno(p.errno); err != nil {
			return nil, err
		}
	} else if p.header.command == CmdRead {
		p.data = make([]byte, p.header.length)
		if err := r.full(p.data); err != nil {
			return nil, err
		}
	}
	delete(r.pending, p.header.cookie)
	return &p.answer, nil
}

// chunk takes one chunk (CH-1, CH-2, EXT-4).
func (r *replyReader) chunk(head []byte) (*answer, error) {
	magic, lengthAt := MagicStructuredReply, 16
	if r.style == styleExtended {
		magic, lengthAt = MagicExtendedReply, 24
	}
	if m := binary.BigEndian.Uint32(head); m != magic {
		return nil, fmt.Errorf("CH-1: magic %#x", m)
	}
	flags := ChunkFlags(binary.BigEndian.Uint16(head[4:]))
	kind := ChunkType(binary.BigEndian.Uint16(head[6:]))
	p, err := r.find(binary.BigEndian.Uint64(head[8:]))
	if err != nil {
		return nil, err
	}
	var length uint64
	if lengthAt == 24 {
		length = binary.BigEndian.Uint64(head[24:])
		if at := binary.BigEndian.Uint64(head[16:]); at != p.header.offset {
			return nil, fmt.Errorf("EXT-4: offset %d in the reply to a request at %d", at, p.header.offset)
		}
	} else {
		length = uint64(binary.BigEndian.Uint32(head[16:]))
	}
	switch {
	case flags&^ChunkFlagDone != 0:
		return nil, fmt.Errorf("CH-2: chunk flags %v", flags)
	case length > payloadAdvertised+8 && kind != ChunkBlockStatus && kind != ChunkBlockStatusExt:
		return nil, fmt.Errorf("CH-9: %v chunk of %d bytes", kind, length)
	case length > 64<<20:
		return nil, fmt.Errorf("CH-9: %v chunk of %d bytes", kind, length)
	}
	payload := make([]byte, length)
	if err := r.full(payload); err != nil {
		return nil, err
	}
	if err := r.content(p, kind, flags, payload); err != nil {
		return nil, fmt.Errorf("reply to %v at %d, length %d: %w", p.header.command, p.header.offset, p.header.length, err)
	}
	if flags&ChunkFlagDone == 0 {
		return nil, nil
	}
	delete(r.pending, p.header.cookie)
	if err := p.complete(); err != nil {
		return nil, fmt.Errorf("reply to %v at %d, length %d: %w", p.header.command, p.header.offset, p.header.length, err)
	}
	return &p.answer, nil
}

// find returns the request that a reply is for (REQ-2); a second reply, or a chunk after DONE, finds none (CH-2).
func (r *replyReader) find(cookie uint64) (*pendingReply, error) {
	p := r.pending[cookie]
	if p == nil {
		return nil, fmt.Errorf("REQ-2: reply with the cookie %#x, which no request waits for", cookie)
	}
	return p, nil
}

func (r *replyReader) full(b []byte) error {
	if _, err := io.ReadFull(r.in, b); err != nil {
		return errTruncated
	}
	return nil
}

func (r *replyReader) content(p *pendingReply, kind ChunkType, flags ChunkFlags, b []byte) error {
	switch kind {
	case ChunkNone:
		if len(b) != 0 || flags&ChunkFlagDone == 0 {
			return fmt.Errorf("CH-3: NONE with %d bytes, flags %v", len(b), flags)
		}
		return nil
	case ChunkOffsetData:
		return p.dataChunk(b)
	case ChunkOffsetHole:
		return p.holeChunk(b)
	case ChunkBlockStatus, ChunkBlockStatusExt:
		return p.statusChunk(kind, r.style, b)
	case ChunkError, ChunkErrorOffset:
		return p.errorChunk(kind, b)
	}
	return fmt.Errorf("CH: unknown type %v", kind)
}

// dataChunk takes an OFFSET_DATA chunk (CH-4).
func (p *pendingReply) dataChunk(b []byte) error {
	if len(b) < 9 {
		return fmt.Errorf("CH-4: OFFSET_DATA of %d bytes", len(b))
	}
	at, err := p.cover(binary.BigEndian.Uint64(b), uint64(len(b)-8))
	if err != nil {
		return fmt.Errorf("CH-4: %w", err)
	}
	p.pieces++
	copy(p.data[at:], b[8:])
	return nil
}

// holeChunk takes an OFFSET_HOLE chunk (CH-5).
func (p *pendingReply) holeChunk(b []byte) error {
	if len(b) != 12 {
		return fmt.Errorf("CH-5: OFFSET_HOLE of %d bytes", len(b))
	}
	if p.header.flags&CmdFlagDF != 0 {
		return errors.New("RD-2: OFFSET_HOLE with DF")
	}
	_, err := p.cover(binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:])))
	if err != nil {
		return fmt.Errorf("CH-5: %w", err)
	}
	p.holes++
	return nil
}

// cover notes content for a range and returns where it lies in the request.
func (p *pendingReply) cover(offset, length uint64) (at uint64, err error) {
	h := p.header
	if h.command != CmdRead {
		return 0, fmt.Errorf("content in the reply to %v", h.command)
	}
	if length == 0 || offset < h.offset || offset-h.offset > h.length || length > h.length-(offset-h.offset) {
		return 0, fmt.Errorf("content at %d, length %d", offset, length)
	}
	s := span{offset, offset + length}
	i, _ := slices.BinarySearchFunc(p.covered, s, func(a, b span) int {
		if a.begin < b.begin {
			return -1
		}
		return 1
	})
	if i > 0 && p.covered[i-1].end > s.begin || i < len(p.covered) && p.covered[i].begin < s.end {
		return 0, fmt.Errorf("content at %d, length %d overlaps other content", offset, length)
	}
	if p.failed {
		return 0, errors.New("CH-12: content after an error")
	}
	p.covered = slices.Insert(p.covered, i, s)
	if p.data == nil {
		p.data = make([]byte, h.length)
	}
	return offset - h.offset, nil
}

// statusChunk takes a chunk with the extents of one context (CH-6, EXT-8, BS-1).
func (p *pendingReply) statusChunk(kind ChunkType, style replyStyle, b []byte) error {
	if p.header.command != CmdBlockStatus {
		return fmt.Errorf("CH-6: %v in the reply to %v", kind, p.header.command)
	}
	if (kind == ChunkBlockStatusExt) != (style == styleExtended) {
		return fmt.Errorf("EXT-8: %v in the style %d", kind, style)
	}
	runs, id, err := parseRuns(kind, b)
	if err != nil {
		return err
	}
	if _, twice := p.status[id]; twice || !slices.Contains(p.ids, id) {
		return fmt.Errorf("BS-1: chunk of the context %d, which was not asked for or has come", id)
	}
	if p.status == nil {
		p.status = map[uint32][]run{}
	}
	p.status[id] = runs
	return p.checkRuns(runs)
}

func parseRuns(kind ChunkType, b []byte) (runs []run, id uint32, err error) {
	head, each := 4, 8
	if kind == ChunkBlockStatusExt {
		head, each = 8, 16
	}
	if len(b) < head+each || (len(b)-head)%each != 0 {
		return nil, 0, fmt.Errorf("CH-6: %v of %d bytes", kind, len(b))
	}
	id = binary.BigEndian.Uint32(b)
	if kind == ChunkBlockStatusExt && int(binary.BigEndian.Uint32(b[4:])) != (len(b)-head)/each {
		return nil, 0, errors.New("EXT-8: the count is wrong")
	}
	for b = b[head:]; len(b) > 0; b = b[each:] {
		if each == 16 {
			runs = append(runs, run{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])})
		} else {
			runs = append(runs, run{uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))})
		}
	}
	return runs, id, nil
}

// checkRuns holds extents against BS-2, BS-3 and BS-4.
func (p *pendingReply) checkRuns(runs []run) error {
	if len(runs) > statusExtentsMax {
		return fmt.Errorf("BS-4: %d extents", len(runs))
	}
	sum := uint64(0)
	for i, e := range runs {
		switch {
		case e.length == 0:
			return errors.New("BS-1: extent of no bytes")
		case e.state>>32 != 0:
			return fmt.Errorf("EXT-8: status %#x", e.state)
		case i > 0 && sum >= p.statusOf:
			return errors.New("BS-3: extents go on after the end of the request")
		}
		sum += e.length
	}
	if p.header.flags&CmdFlagReqOne != 0 && (len(runs) != 1 || sum > p.statusOf) {
		return fmt.Errorf("BS-2: %d extents of %d bytes", len(runs), sum)
	}
	return nil
}

// errorChunk takes an error (CH-7, CH-8, CH-17, GEN-1).
func (p *pendingReply) errorChunk(kind ChunkType, b []byte) error {
	least := 6
	if kind == ChunkErrorOffset {
		least = 14
	}
	if len(b) < least {
		return fmt.Errorf("CH-7: %v of %d bytes", kind, len(b))
	}
	e, n := Errno(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint16(b[4:]))
	if err := knownErrno(e); err != nil {
		return err
	}
	if n > len(b)-least || n > messageMax {
		return fmt.Errorf("CH-17: message of %d bytes", n)
	}
	text := string(b[6 : 6+n])
	if err := checkString(text); err != nil {
		return fmt.Errorf("GEN-1: message: %w", err)
	}
	if kind == ChunkErrorOffset {
		at := binary.BigEndian.Uint64(b[6+n:])
		if at < p.header.offset || at-p.header.offset >= p.header.length {
			return fmt.Errorf("CH-8: error at %d", at)
		}
		p.offsets = append(p.offsets, at)
	}
	if p.failed {
		return errors.New("CH-7: a second error")
	}
	p.failed, p.errno, p.text = true, e, text
	return nil
}

// complete judges a reply as a whole (RD-1, RD-2, BS-1).
func (p *pendingReply) complete() error {
	h := p.header
	if h.flags&CmdFlagDF != 0 && p.pieces > 1 {
		return fmt.Errorf("RD-2: %d pieces with DF", p.pieces)
	}
	if p.failed {
		return nil
	}
	total := uint64(0)
	for _, s := range p.covered {
		total += s.end - s.begin
	}
	if h.command == CmdRead && total != h.length {
		return fmt.Errorf("RD-1: %d bytes covered", total)
	}
	if h.command == CmdBlockStatus && len(p.status) != len(p.ids) {
		return fmt.Errorf("BS-1: %d of %d contexts", len(p.status), len(p.ids))
	}
	return nil
}

// knownErrno holds an error against the list of the specification (ERR-1).
func knownErrno(e Errno) error {
	switch e {
	case EPerm, EIO, ENoMem, EInval, ENoSpc, EOverflow, ENotSup, EShutdown:
		return nil
	}
	return fmt.Errorf("ERR-1: %v on the wire", e)
}
