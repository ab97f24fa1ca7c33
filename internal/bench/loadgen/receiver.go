package loadgen

import (
	"encoding/binary"
	"fmt"
)

// receiveBytes is the size of the one receive buffer of a connection: room for the
// replies of 32 requests of 4 KiB, small enough to stay in the processor's cache while
// larger payloads pass through it.
const receiveBytes = 256 << 10

// receiver parses the stream of replies. The unfinished tail of a receive is at most a
// header, and moves to the front of the buffer; payloads are consumed as they pass.
type receiver struct {
	// Immutable.
	w *worker

	// Owned by the worker's thread.
	buf  []byte
	have int // bytes at the front of buf that await their rest

	// The payload being received.
	slot   *slot
	left   int   // bytes of it still to come
	offset int64 // in the export, of the next byte
	data   bool  // it is data of a read; else it is skipped
	done   bool  // the request is complete after it
}

// space is where the next receive goes.
func (r *receiver) space() []byte { return r.buf[r.have:] }

// accept parses the n bytes that were put into space.
func (r *receiver) accept(n int) error {
	b := r.buf[:r.have+n]
	for len(b) > 0 {
		used, err := r.step(b)
		if err != nil {
			return err
		}
		if used == 0 {
			break
		}
		b = b[used:]
	}
	r.have = copy(r.buf, b)
	return nil
}

// step consumes a header or a piece of payload from the front of b; 0 means that there
// is not enough of it yet.
func (r *receiver) step(b []byte) (int, error) {
	if r.left > 0 {
		return r.payload(b)
	}
	if len(b) < simpleReplyBytes {
		return 0, nil
	}
	switch magic := binary.BigEndian.Uint32(b); magic {
	case simpleReplyMagic:
		return simpleReplyBytes, r.simple(b)
	case structuredReplyMagic:
		return r.chunk(b)
	default:
		return 0, fmt.Errorf("reply with magic %#x", magic)
	}
}

func (r *receiver) payload(b []byte) (int, error) {
	n := min(len(b), r.left)
	if r.data && r.w.spec.Verify {
		if i := mismatch(b[:n], r.offset); i >= 0 {
			return 0, fmt.Errorf("corrupt data at offset %d: got %#02x, want %#02x",
				r.offset+int64(i), b[i], patternByte(r.offset+int64(i)))
		}
	}
	r.left -= n
	r.offset += int64(n)
	if r.left == 0 && r.done {
		return n, r.w.complete(r.slot)
	}
	return n, nil
}

// simple takes a simple reply's header. NBD proto.md, "Simple reply message".
func (r *receiver) simple(b []byte) error {
	s, err := r.w.slotOf(binary.BigEndian.Uint64(b[8:]))
	if err != nil {
		return err
	}
	if code := binary.BigEndian.Uint32(b[4:]); code != 0 {
		return fmt.Errorf("%s answered with error %d", s, code)
	}
	if s.typ != cmdRead {
		return r.w.complete(s)
	}
	s.got += s.length
	r.expect(s, s.length, s.offset, true, true)
	return nil
}

// expect sets what follows the header.
func (r *receiver) expect(s *slot, left int, offset int64, data, done bool) {
	r.slot, r.left, r.offset, r.data, r.done = s, left, offset, data, done
}

// chunk takes a structured reply's header and, for data and holes, the offset behind
// it. NBD proto.md, "Structured reply chunk message".
func (r *receiver) chunk(b []byte) (int, error) {
	if len(b) < structuredReplyBytes {
		return 0, nil
	}
	flags, typ := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	length := int(binary.BigEndian.Uint32(b[16:]))
	done := flags&replyFlagDone != 0
	s, err := r.w.slotOf(binary.BigEndian.Uint64(b[8:]))
	switch {
	case err != nil:
		return 0, err
	case typ&replyTypeErrorFlag != 0:
		return 0, fmt.Errorf("%s answered with an error chunk of type %#x", s, typ)
	case typ == replyTypeOffsetData && length > offsetBytes:
		return r.dataChunk(b, s, length-offsetBytes, done)
	case typ == replyTypeOffsetHole && length == holeBytes:
		return r.holeChunk(b, s, done)
	case typ == replyTypeNone && length == 0 && done:
		return structuredReplyBytes, r.w.complete(s)
	}
	return 0, fmt.Errorf("chunk of type %d and %d bytes for %s", typ, length, s)
}

func (r *receiver) dataChunk(b []byte, s *slot, length int, done bool) (int, error) {
	const used = structuredReplyBytes + offsetBytes
	if len(b) < used {
		return 0, nil
	}
	offset := int64(binary.BigEndian.Uint64(b[structuredReplyBytes:]))
	if err := s.take(offset, length); err != nil {
		return 0, err
	}
	r.expect(s, length, offset, true, done)
	return used, nil
}

func (r *receiver) holeChunk(b []byte, s *slot, done bool) (int, error) {
	const used = structuredReplyBytes + holeBytes
	if len(b) < used {
		return 0, nil
	}
	offset := int64(binary.BigEndian.Uint64(b[structuredReplyBytes:]))
	if err := s.take(offset, int(binary.BigEndian.Uint32(b[structuredReplyBytes+offsetBytes:]))); err != nil {
		return 0, err
	}
	if r.w.spec.Verify {
		return 0, fmt.Errorf("corrupt data at offset %d: a hole, want the pattern", offset)
	}
	if done {
		return used, r.w.complete(s)
	}
	return used, nil
}
