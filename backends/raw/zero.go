package raw

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// pieceBytes is how much one fallocate or BLKDISCARD may cover. Devices that have to write the zeroes do so at
// 100 MB/s and more: others get their turn about every second at worst.
const pieceBytes = 128 << 20

// WriteZeroes zeroes r without a buffer, or fails with ENOTSUP before it has changed anything.
//
// What the kernel does for a block device without help from it, writing its zero page, is not faster than
// writing, so ZeroNoFallback refuses it; without that flag it still saves the copy.
func (f *File) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	pos := f.base + r.Offset
	if f.readOnly {
		return f.fail("write zeroes", pos, unix.EROFS)
	}
	if flags&blockcore.ZeroNoFallback != 0 && f.device.block && !f.device.zeroOffload {
		return unix.ENOTSUP
	}
	durable := f.durable(flags&blockcore.ZeroFUA != 0)
	if durable {
		if err := f.damage("write zeroes (FUA)"); err != nil {
			return err
		}
	}
	unmap := flags&blockcore.ZeroMayUnmap != 0 && f.unmap
	defer f.data.forget()
	defer f.forgetPages(r)
	err := inPieces(t, pos, r.Length, func(pos, length int64) error {
		return f.zeroPiece(t, pos, length, unmap)
	})
	if errors.Is(err, unix.ENOTSUP) {
		return unix.ENOTSUP
	}
	if err != nil {
		return f.fail("write zeroes", pos, err)
	}
	if durable {
		return f.sync(t, "write zeroes (FUA)")
	}
	return nil
}

// zeroPiece tries the ways to zero a range, the best first. Each one that the file system does not have
// is tried once in the life of the File.
func (f *File) zeroPiece(t *blockcore.Task, pos, length int64, unmap bool) error {
	if unmap {
		if err := f.punch(t, pos, length); !noWay(err) {
			return err
		}
	}
	err := f.tryAllocate(t, &f.lacks.zeroRange, unix.FALLOC_FL_ZERO_RANGE, pos, length)
	if !noWay(err) {
		return err
	}
	// tmpfs: no zero range, but a hole and storage for it again. Allocating first, which changes nothing that can be
	// read, proves once that the second step can be done at all.
	if f.lacks.punch.Load() {
		return unix.ENOTSUP
	}
	if !f.allocates.Load() {
		if err := f.tryAllocate(t, &f.lacks.allocate, 0, pos, length); err != nil {
			return notSupported(err)
		}
		f.allocates.Store(true)
	}
	if err := f.punch(t, pos, length); err != nil {
		return notSupported(err)
	}
	return f.tryAllocate(t, &f.lacks.allocate, 0, pos, length)
}

func (f *File) punch(t *blockcore.Task, pos, length int64) error {
	return f.tryAllocate(t, &f.lacks.punch, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, pos, length)
}

// tryAllocate is fallocate(2) unless it is known to be lacking.
func (f *File) tryAllocate(t *blockcore.Task, lacking *atomic.Bool, mode uint32, pos, length int64) error {
	if lacking.Load() {
		return unix.ENOTSUP
	}
	err := f.system.allocate(t, f.fd, mode, pos, length)
	if unsupported(err) {
		lacking.Store(true)
		return unix.ENOTSUP
	}
	return err
}

// noWay reports whether another way has to be tried: the file system cannot do it at all, or
// (EINVAL) not for this range.
func noWay(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL)
}

func notSupported(err error) error {
	if noWay(err) {
		return unix.ENOTSUP
	}
	return err
}

// inPieces calls do for one piece after the other and lets other Tasks run in between.
func inPieces(t *blockcore.Task, pos, length int64, do func(pos, length int64) error) error {
	for length > 0 {
		n := min(length, pieceBytes)
		if err := do(pos, n); err != nil {
			return err
		}
		if length -= n; length > 0 {
			pos += n
			t.Yield()
		}
	}
	return nil
}
