package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/membuf"
)

// WriteAt stores p at offset off.
func (f *File) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	pos := f.base + off
	if f.readOnly {
		return f.fail("write", pos, unix.EROFS)
	}
	if f.guard != nil && off == 0 && len(p) >= sectorBytes {
		if err := f.guard(p[:sectorBytes]); err != nil {
			return f.fail("write", pos, err)
		}
	}
	fua := flags&blockcore.WriteFUA != 0
	if f.detect != DetectOff && membuf.AllZero(p) {
		err := f.writeDetected(t, blockcore.Range{Offset: off, Length: int64(len(p))}, fua)
		if !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	if f.durable(fua) {
		return f.writeDurably(t, p, pos)
	}
	return f.writePlainly(t, p, pos)
}

// writeDetected is a write that turned out to be zeroes.
func (f *File) writeDetected(t *blockcore.Task, r blockcore.Range, fua bool) error {
	flags := blockcore.ZeroNoFallback
	if fua {
		flags |= blockcore.ZeroFUA
	}
	if f.detect == DetectUnmap {
		flags |= blockcore.ZeroMayUnmap
	}
	return f.WriteZeroes(t, r, flags)
}

func (f *File) writePlainly(t *blockcore.Task, p []byte, pos int64) error {
	for len(p) > 0 {
		n, err := f.writeOnce(t, p, pos)
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return f.fail("write", pos, err)
		}
		p, pos = p[n:], pos+int64(n)
		if len(p) > 0 && !f.direct {
			t.Yield()
		}
	}
	return nil
}

// How long buffered writes are made, in bytes. Measured in docs/decisions/0003-buffered-writes.md.
const (
	// inlinePiece is what the loop copies of a long one before others have a turn: the client goes on when the socket
	// has room again.
	inlinePiece = 64 << 10
	// awayMin is the shortest that the engine makes although the loop could: the copy then takes so long that receiving the next
	// payload beside it is worth a wake-up.
	awayMin = 512 << 10
)

// writeOnce makes one attempt, by whoever is quickest.
func (f *File) writeOnce(t *blockcore.Task, p []byte, pos int64) (int, error) {
	if f.direct {
		n, err := f.system.write(t, f.fd, p, pos, 0)
		return f.wholeBlocks(n, len(p)), err
	}
	if !f.lacks.writeNow.Load() {
		n, err := f.system.writeNow(f.fd, p, pos, unix.RWF_NOWAIT)
		switch {
		case err == nil && n > 0:
			return n, nil
		case unsupported(err):
			f.lacks.writeNow.Store(true)
		default:
			return f.system.write(t, f.fd, p, pos, 0)
		}
	}
	begin := t.Latest()
	if len(p) >= awayMin && (f.away > 0 || !t.Alone()) || !f.pace.inline(begin) && !f.mapsAlways() {
		return f.writeAway(t, p, pos)
	}
	n, err := f.writeInline(t, p, pos)
	now := t.Now()
	f.pace.observe(now, now-begin, len(p))
	if errors.Is(err, unix.EINTR) {
		return f.writeAway(t, p, pos)
	}
	return n, err
}

// writeAway has the engine make a buffered write.
func (f *File) writeAway(t *blockcore.Task, p []byte, pos int64) (int, error) {
	if len(p) < awayMin {
		return f.system.write(t, f.fd, p, pos, 0)
	}
	f.away++
	t.BeginCopy()
	n, err := f.system.write(t, f.fd, p, pos, 0)
	t.EndCopy()
	f.away--
	return n, err
}

// writeInline makes a write that only copies, if nothing is in its way.
func (f *File) writeInline(t *blockcore.Task, p []byte, pos int64) (int, error) {
	if f.storeMapped(t, p, pos) {
		return len(p), nil
	}
	n, err := f.system.writeNow(f.fd, p[:min(len(p), inlinePiece)], pos, 0)
	f.wrote(t, pos, n)
	return n, err
}

// writeDurably writes with RWF_DSYNC. See the package's comment for what becomes of errors.
func (f *File) writeDurably(t *blockcore.Task, p []byte, pos int64) error {
	if err := f.damage("write (FUA)"); err != nil {
		return err
	}
	y := f.syncs.begin()
	err := f.writeSynced(t, p, pos)
	f.syncs.end(y)
	if err != nil {
		return err
	}
	f.settleSyncs(t)
	return f.damage("write (FUA)")
}

func (f *File) writeSynced(t *blockcore.Task, p []byte, pos int64) error {
	for len(p) > 0 {
		n, err := f.system.write(t, f.fd, p, pos, unix.RWF_DSYNC)
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return f.durableWriteFailed(t, p, pos, err)
		}
		n = f.wholeBlocks(n, len(p))
		if n == 0 {
			return f.fail("write (FUA)", pos, unix.EIO)
		}
		p, pos = p[n:], pos+int64(n)
	}
	return nil
}

func (f *File) durableWriteFailed(t *blockcore.Task, p []byte, pos int64, err error) error {
	if !errors.Is(err, unix.EIO) {
		if plain := f.writePlainly(t, p, pos); plain != nil {
			return fmt.Errorf("FUA: %w", plain)
		}
	}
	return f.syncFailed("write (FUA)", err)
}
