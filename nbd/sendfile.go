package nbd

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// sendfileMin is the shortest READ that is answered by sendfile(2), in bytes: below it two copies cost less
// than two more system calls.
const sendfileMin = 64 << 10

// readFromCache answers a READ straight from the page cache, without a copy in this process, when the driver has
// all of it there and the socket waits for nothing else. It reports whether it has answered.
//
// What the client receives is what the pages hold when it takes them out of the socket, which is within the time
// that its request takes: an overlapping write meanwhile is concurrent with the READ.
func (q *request) readFromCache(t *blockcore.Task) bool {
	c := q.conn
	if q.header.length < sendfileMin || c.broken {
		return false
	}
	if c.style != styleSimple && q.header.length > payloadAdvertised {
		return false // more than one chunk may carry
	}
	fd, pos, ok := q.edge().CachedFile(q.bytes())
	if !ok {
		return false
	}
	since := t.Latest()
	c.flush()
	if c.broken || !c.out.empty() {
		return false
	}
	c.replyHeader(q)
	c.push(unix.MSG_MORE)
	if c.broken || !c.out.empty() {
		q.readRest(t, 0)
		return true
	}
	sent, err := c.sendfile(fd, pos, int(q.header.length))
	if err != nil {
		c.lose(err)
		return true
	}
	if sent > 0 {
		c.stats.read += uint64(sent)
		q.edge().Sent(t, since, int64(sent))
	}
	q.readRest(t, sent)
	return true
}

// replyHeader appends what precedes the data of a READ answered in one piece. The chunk is not the last one of its reply: what is
// still to be read may fail, and only an error behind it can tell. NBD proto.md, "Structured replies".
func (c *Conn) replyHeader(q *request) {
	if c.style == styleSimple {
		c.simple(q, 0)
		return
	}
	p := c.chunk(q, 0, ChunkOffsetData, 8+int(q.header.length), 8)
	binary.BigEndian.PutUint64(p, q.header.offset)
}

// sendfile sends up to n bytes and returns how many the socket took.
func (c *Conn) sendfile(fd int, pos int64, n int) (int, error) {
	sent := 0
	for sent < n {
		m, err := unix.Sendfile(c.fd, fd, &pos, n-sent)
		switch {
		case err == unix.EAGAIN || err == nil && m == 0:
			return sent, nil
		case err == unix.EINTR:
		case err != nil:
			return sent, fmt.Errorf("send: %w", err)
		default:
			sent += m
		}
	}
	return sent, nil
}

// readRest reads what the socket has not taken, keeps its place in the outbox meanwhile, and ends the reply. The header has left, so
// when the read of pages that were in the cache a moment ago fails, zeroes take their place and an error follows; a simple
// reply cannot tell of one any more and the connection ends.
func (q *request) readRest(t *blockcore.Task, sent int) {
	c := q.conn
	rest := int(q.header.length) - sent
	if rest == 0 {
		c.replyEnd(q)
		return
	}
	buf := t.Buffers().Get(rest)
	place := c.promise(buf)
	at := q.header.offset + uint64(sent)
	err := q.edge().Read(t, buf, int64(at))
	if err != nil && c.style == styleSimple {
		c.lose(fmt.Errorf("read behind the header of a reply: %w", err))
	}
	if c.broken {
		t.Buffers().Put(buf)
		return
	}
	charge := q.charge
	q.charge = 0
	if err != nil {
		clear(buf)
		c.fulfil(place, buf, charge)
		q.failedAt(err, at)
		return
	}
	c.stats.read += uint64(rest)
	c.fulfil(place, buf, charge)
	c.replyEnd(q)
}
