package nfs

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// Resize has the file end where the disk is to end. The node is drained.
func (f *File) Resize(t *blockcore.Task, sizeBytes int64) error {
	f.enter(t)
	if f.readOnly {
		return fmt.Errorf("resize %s: Image is read-only: %w", f.url, syscall.EACCES)
	}
	// What is held must not be written again behind the new end.
	err := f.settle(t, f.held.seq)
	if err == nil {
		err = f.resizeAlone(t, sizeBytes)
	}
	if err != nil {
		return fmt.Errorf("resize %s: %w", f.url, err)
	}
	return nil
}

// resizeAlone is Resize when nothing is in limbo that would be written behind the new end, or had another one in mind.
func (f *File) resizeAlone(t *blockcore.Task, sizeBytes int64) error {
	lock, err := f.awaitLimbo(t)
	if err != nil {
		return err
	}
	if err := f.setSize(t, sizeBytes, lock); err != nil {
		return err
	}
	f.held.cut(t.Buffers(), sizeBytes)
	return nil
}

// Extend makes the file longer while it is in use: what is new reads as zeroes.
func (f *File) Extend(t *blockcore.Task, toBytes int64) error {
	f.enter(t)
	since := time.Duration(0)
	for f.extending || f.resizing > 0 {
		if err := f.wait(t, &f.extenders, &since); err != nil {
			return f.fail("extend", toBytes, err)
		}
	}
	switch {
	case toBytes <= f.Size():
		return nil
	case f.readOnly:
		return fmt.Errorf("extend %s: it ends at %d bytes: %w", f.url, f.Size(), syscall.ENOSPC)
	}
	f.extending = true
	defer func() {
		f.extending = false
		f.extenders.WakeAll()
	}()
	// Somebody else may have made it longer still, and nothing is to be cut off.
	g := f.calls.takeGroup(t)
	err := f.one(t, g, wire.ProcGetattr, 0)
	end := g.attributes.SizeBytes
	f.calls.giveGroup(g)
	switch {
	case err != nil:
	case end < uint64(toBytes):
		err = f.setSize(t, toBytes, nil)
	case end <= 1<<62:
		f.sized(int64(end))
	default:
		err = syscall.EFBIG
	}
	if err != nil {
		return fmt.Errorf("extend %s: %w", f.url, err)
	}
	return nil
}

// setSize changes the file's length, which a server makes durable before it answers (RFC 1813 3.3.2), and gives back the lock of what must not be written to meanwhile; nil = of nothing.
func (f *File) setSize(t *blockcore.Task, sizeBytes int64, lock *blockcore.RangeLock) error {
	g := f.calls.takeGroup(t)
	g.lock = lock
	err := f.setSizeFor(t, g, sizeBytes)
	if lock != nil && !g.handed {
		f.locks.Release(lock)
	}
	f.calls.giveGroup(g)
	return err
}

func (f *File) setSizeFor(t *blockcore.Task, g *group, sizeBytes int64) error {
	if f.fileMax > 0 && sizeBytes > f.fileMax {
		return fmt.Errorf("the server takes files of %d bytes: %w", f.fileMax, syscall.EFBIG)
	}
	err := f.one(t, g, wire.ProcSetattr, sizeBytes)
	if err != nil && g.repeated && !g.handed && f.endsAt(t, sizeBytes) {
		err = nil // an earlier call was executed, and its reply lost
	}
	if errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("the server does not take a file of %d bytes: %w", sizeBytes, err)
	}
	if err != nil {
		return err
	}
	f.sized(sizeBytes)
	return nil
}

// endsAt asks the server whether the file ends there.
func (f *File) endsAt(t *blockcore.Task, sizeBytes int64) bool {
	g := f.calls.takeGroup(t)
	err := f.one(t, g, wire.ProcGetattr, 0)
	there := err == nil && g.attributes.SizeBytes == uint64(sizeBytes)
	f.calls.giveGroup(g)
	return there
}

// sized takes over the file's length.
func (f *File) sized(sizeBytes int64) {
	f.eof, f.firm = sizeBytes, sizeBytes
	f.size.Store(roundUp(sizeBytes))
}

// sizedLate notes that the file has a length that was given up. The disk keeps its own: what the file lacks of it reads as zeroes.
func (f *File) sizedLate(sizeBytes int64) {
	f.eof, f.firm = sizeBytes, sizeBytes
	f.held.cut(f.ctx.Buffers(), sizeBytes)
}
