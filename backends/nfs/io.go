package nfs

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// ReadAt reads in pieces that the server takes, all at once. What is held is newer than what the server has, or as new.
func (f *File) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	f.enter(t)
	for !f.held.covers(off, int64(len(p))) {
		gone := f.held.gone
		short, err := f.read(t, p, off)
		if err != nil {
			return f.fail("read", off, err)
		}
		if gone != f.held.gone {
			continue // it may have seen what a restart of the server had undone
		}
		if end := min(off+int64(len(p)), f.firm); short >= 0 && short < end && !f.held.covers(short, end-short) {
			return f.fail("read", off, fmt.Errorf("the file ends at %#x: somebody else has made it shorter: %w", short, syscall.EIO))
		}
		break
	}
	f.held.overlay(p, off)
	return nil
}

// read reads from the server. short is where the file ended before it should; -1 = nowhere.
func (f *File) read(t *blockcore.Task, p []byte, off int64) (short int64, err error) {
	n := int(min(int64(len(p)), max(f.eof-off, 0)))
	clear(p[n:]) // what rounds the size up
	p = p[:n]
	g := f.calls.takeGroup(t)
	f.reads++
	large := n >= largeBytes
	if large {
		f.largeReads++
	}
	for len(p) > 0 && g.err == nil {
		piece := p[:min(len(p), f.readMax)]
		f.submit(t, g, wire.ProcRead, piece, off, 0)
		p, off = p[len(piece):], off+int64(len(piece))
	}
	err = f.await(t, g)
	f.reads--
	if large {
		f.largeReads--
	}
	short = g.short
	f.calls.giveGroup(g)
	return short, err
}

// WriteAt writes in pieces that the server takes. What the server has only in memory is held until a COMMIT; with FUA there is none.
func (f *File) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	f.enter(t)
	if f.guard != nil && off == 0 && len(p) >= sectorBytes {
		if err := f.guard(p[:sectorBytes]); err != nil {
			return f.fail("write", off, err)
		}
	}
	return f.write(t, source{p, false}, blockcore.Range{Offset: off, Length: int64(len(p))}, flags&blockcore.WriteFUA != 0)
}

// WriteZeroes writes zeroes: NFS version 3 has no better way.
func (f *File) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	if flags&blockcore.ZeroNoFallback != 0 {
		return syscall.ENOTSUP
	}
	f.enter(t)
	zero := t.Buffers().Get(int(min(r.Length, int64(f.writeMax))))
	defer t.Buffers().Put(zero)
	clear(zero)
	return f.write(t, source{zero, true}, r, flags&blockcore.ZeroFUA != 0)
}

// source is what is written: bytes, or the same bytes again and again.
type source struct {
	p       []byte
	repeats bool
}

// take returns the next n bytes.
func (s *source) take(n int) []byte {
	p := s.p[:n]
	if !s.repeats {
		s.p = s.p[n:]
	}
	return p
}

func (f *File) write(t *blockcore.Task, s source, r blockcore.Range, fua bool) error {
	fua = (fua || f.through) && !f.noFlush
	how := wire.Unstable
	if fua && r.Length <= int64(f.writeMax) {
		how = wire.FileSync // one call instead of two
	}
	unstable := false
	for done := int64(0); done < r.Length; {
		chunk := blockcore.Range{Offset: r.Offset + done, Length: min(r.Length-done, f.heldMax/chunkPart)}
		left, err := f.writeChunk(t, &s, chunk, how)
		if err != nil {
			return f.fail("write", chunk.Offset, err)
		}
		unstable = unstable || left
		done += chunk.Length
	}
	if fua && unstable {
		if err := f.settle(t, f.held.seq); err != nil {
			return f.fail("write with FUA", r.Offset, err)
		}
		return nil
	}
	f.settleAhead()
	return nil
}

// writeChunk writes, alone in its range: two writes to one place that are under way at once would leave one on the server and hold the other. unstable says that
// something is not on stable storage yet.
func (f *File) writeChunk(t *blockcore.Task, s *source, r blockcore.Range, how wire.Stable) (unstable bool, err error) {
	if err := f.awaitCopies(t); err != nil {
		return false, err
	}
	pages := int64(0)
	if how == wire.Unstable {
		pages = pagesOf(r.Offset, r.Length)
		if err := f.makeRoom(t, pages); err != nil {
			return false, err
		}
	}
	lock, err := f.hold(t, r)
	if err != nil {
		f.giveRoom(pages)
		return false, err
	}
	g := f.calls.takeGroup(t)
	g.lock, g.pages = lock, pages
	for off := r.Offset; off < r.End() && g.err == nil; {
		piece := s.take(int(min(r.End()-off, int64(f.writeMax))))
		f.submit(t, g, wire.ProcWrite, piece, off, how)
		off += int64(len(piece))
	}
	err = f.await(t, g)
	unstable = g.unstable
	if !g.handed {
		f.locks.Release(lock)
		f.giveRoom(pages)
	}
	f.calls.giveGroup(g)
	return unstable, err
}

// Flush makes durable all writes that have returned.
func (f *File) Flush(t *blockcore.Task) error {
	f.enter(t)
	if f.noFlush {
		return nil
	}
	if err := f.settle(t, f.held.seq); err != nil {
		return advise(fmt.Errorf("flush %s: %w", f.url, err))
	}
	return nil
}
