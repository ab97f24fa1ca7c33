package nbd

import (
	"nbd-dataplane/blockcore"
)

// The commands, each in the words of NBD proto.md, "Request types". They return the error of the backend, or
// hand over the reply and return nil.

// bytes is the range that q names. It was checked against the size of the export.
func (q *request) bytes() blockcore.Range {
	return blockcore.Range{Offset: int64(q.header.offset), Length: int64(q.header.length)}
}

// fua reports whether q must be durable before it is answered.
func (q *request) fua() bool {
	return q.header.flags&CmdFlagFUA != 0 || q.conn.export.options.WriteThrough
}

func (q *request) edge() *blockcore.Edge { return q.conn.export.root.Edge() }

// read reads all of the range before the header of the reply is written, so that an error is always a reply.
func (q *request) read(t *blockcore.Task) error {
	if q.header.length == 0 {
		q.conn.replyDone(q)
		return nil
	}
	if q.header.flags&CmdFlagDF != 0 && q.header.length > payloadAdvertised {
		return &clientError{EOverflow, "READ in one piece is longer than a payload may be"}
	}
	if q.readFromCache(t) {
		return nil
	}
	buf := t.Buffers().Get(int(q.header.length))
	if err := q.edge().Read(t, buf, int64(q.header.offset)); err != nil {
		t.Buffers().Put(buf)
		return err
	}
	q.conn.replyRead(q, buf)
	return nil
}

func (q *request) write(t *blockcore.Task) error {
	if q.header.length > 0 {
		var flags blockcore.WriteFlags
		if q.fua() {
			flags = blockcore.WriteFUA
		}
		if err := q.edge().Write(t, q.payload, int64(q.header.offset), flags); err != nil {
			return err
		}
		q.conn.stats.written += q.header.length
	}
	q.conn.replyDone(q)
	return nil
}

func (q *request) flush(t *blockcore.Task) error {
	if err := q.edge().Flush(t); err != nil {
		return err
	}
	q.conn.replyDone(q)
	return nil
}

func (q *request) trim(t *blockcore.Task) error {
	if err := q.edge().Discard(t, q.bytes(), q.fua()); err != nil {
		return err
	}
	q.conn.replyDone(q)
	return nil
}

func (q *request) cache(t *blockcore.Task) error {
	if err := q.edge().Prefetch(t, q.bytes()); err != nil {
		return err
	}
	q.conn.replyDone(q)
	return nil
}

func (q *request) writeZeroes(t *blockcore.Task) error {
	var flags blockcore.ZeroFlags
	if q.fua() {
		flags |= blockcore.ZeroFUA
	}
	if q.header.flags&CmdFlagNoHole == 0 {
		flags |= blockcore.ZeroMayUnmap
	}
	if q.header.flags&CmdFlagFastZero != 0 {
		flags |= blockcore.ZeroNoFallback
	}
	if err := q.edge().WriteZeroes(t, q.bytes(), flags); err != nil {
		return err
	}
	q.conn.replyDone(q)
	return nil
}
