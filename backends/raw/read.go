package raw

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// ReadAt fills p from offset off.
func (f *File) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	pos := f.base + off
	if f.loadMapped(t, p, pos) {
		return nil
	}
	if n := f.readInline(t, p, pos); n > 0 {
		p, pos = p[n:], pos+int64(n)
	}
	for len(p) > 0 {
		n, err := f.system.read(t, f.fd, p, pos)
		if err != nil {
			return f.fail("read", pos, err)
		}
		whole := f.wholeBlocks(n, len(p))
		if whole == 0 {
			return f.readBehindEnd(p, n, pos)
		}
		p, pos = p[whole:], pos+int64(whole)
	}
	return nil
}

// readInline copies what the page cache has, if that delays nobody, and returns how much that was.
func (f *File) readInline(t *blockcore.Task, p []byte, pos int64) int {
	if f.direct {
		return 0 // RWF_NOWAIT would still wait for the disk
	}
	flags := unix.RWF_NOWAIT
	switch {
	case f.device.inMemory:
		// tmpfs does not know RWF_NOWAIT, and need not: it has no disk.
		flags = 0
	case f.lacks.readNow.Load():
		return 0
	case !t.Alone() && t.Context().EngineName() != "threads":
		// The ring copies hits while it submits: one system call for the whole turn. A worker would cost two
		// wake-ups each.
		return 0
	}
	n, err := f.system.readNow(f.fd, p, pos, flags)
	if err == nil {
		return n
	}
	if unsupported(err) {
		f.lacks.readNow.Store(true)
	}
	return 0 // the engine meets the same error, if it is one
}

// wholeBlocks returns how much of a transfer of n bytes counts: with O_DIRECT the rest has to begin at a block again.
func (f *File) wholeBlocks(n, wanted int) int {
	if n == wanted || f.directAlign == 1 {
		return n
	}
	return n &^ int(f.directAlign-1)
}

// readBehindEnd ends a read that got n bytes, less than a block, because the file ends there.
func (f *File) readBehindEnd(p []byte, n int, pos int64) error {
	if end := pos + int64(n); end < f.eof {
		return f.fail("read", end, fmt.Errorf("the file ends here, it had %d bytes when it was opened or resized: %w", f.eof, unix.EIO))
	}
	clear(p[n:])
	return nil
}
