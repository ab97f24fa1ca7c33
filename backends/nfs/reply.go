package nfs

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/backends/nfs/wire"
)

// repliedRead takes the results of a READ whose data is in its place.
func (f *File) repliedRead(c *call, r wire.ReadResult) {
	switch {
	case r.Err != nil:
		f.failed(c, r.Err)
	case r.DataBytes == len(c.data):
		f.finish(c, nil)
	case r.EOF:
		at := c.off + int64(r.DataBytes)
		clear(c.data[r.DataBytes:])
		if c.group.short < 0 || at < c.group.short {
			c.group.short = at
		}
		f.finish(c, nil)
	case r.DataBytes == 0:
		f.finish(c, fmt.Errorf("the server sends nothing and says that there is more: %w", syscall.EIO))
	default: // the rest, which a server may leave for another call (RFC 1813 3.3.6)
		c.data, c.off, c.busy = c.data[r.DataBytes:], c.off+int64(r.DataBytes), 0
		f.again(c)
	}
}

// replied takes the results of any other call. An error is a reply that cannot be.
func (f *File) replied(c *call, b []byte) error {
	var err error
	switch c.proc {
	case wire.ProcWrite:
		return f.repliedWrite(c, b)
	case wire.ProcCommit:
		c.group.verifier, err = wire.ParseCommit(b)
	case wire.ProcSetattr:
		if err = wire.ParseSetattr(b); err == nil && c.group.limbo {
			f.sizedLate(c.size)
		}
	case wire.ProcGetattr:
		c.group.attributes, err = wire.ParseGetattr(b)
	}
	if errors.Is(err, wire.ErrMalformed) {
		return err
	}
	if err != nil {
		f.failed(c, err)
		return nil
	}
	f.finish(c, nil)
	return nil
}

func (f *File) repliedWrite(c *call, b []byte) error {
	w, err := wire.ParseWrite(b)
	switch {
	case errors.Is(err, wire.ErrMalformed):
		return err
	case err != nil:
		f.failed(c, err)
		return nil
	case w.Bytes == 0 || uint64(w.Bytes) > uint64(len(c.data)):
		return fmt.Errorf("WRITE of %d bytes has written %d: %w", len(c.data), w.Bytes, wire.ErrMalformed)
	}
	f.written(c, c.data[:w.Bytes], w)
	if int(w.Bytes) == len(c.data) {
		f.finish(c, nil)
		return nil
	}
	c.data, c.off, c.busy = c.data[w.Bytes:], c.off+int64(w.Bytes), 0
	f.again(c)
	return nil
}

// written notes what is on the server now, and holds it if a crash of the server would lose it.
func (f *File) written(c *call, p []byte, w wire.Written) {
	g, off := c.group, c.off
	f.eof = max(f.eof, off+int64(len(p)))
	g.mixed = g.mixed || g.written && g.verifier != w.Verifier
	g.written, g.verifier = true, w.Verifier
	if w.Committed != wire.Unstable {
		f.held.overwrite(f.ctx.Buffers(), off, p, w.Verifier)
		return
	}
	g.unstable = true
	f.held.put(f.ctx.Buffers(), off, p, w.Verifier)
	if c.order <= f.doubted {
		f.held.doubtRange(off, int64(len(p)))
	}
}

// failed ends a call with what the server says, unless it says later.
func (f *File) failed(c *call, err error) {
	if status, ok := errors.AsType[*wire.StatusError](err); ok && status.Status == wire.StatusJukebox {
		f.rest(c)
		return
	}
	f.finish(c, err)
}
