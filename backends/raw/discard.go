package raw

import (
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// Discard gives up the contents of r. It is advice: where it is switched off, or nobody can take it, it
// succeeds and does nothing.
func (f *File) Discard(t *blockcore.Task, r blockcore.Range) error {
	pos := f.base + r.Offset
	if f.readOnly {
		return f.fail("discard", pos, unix.EROFS)
	}
	if !f.unmap {
		return nil
	}
	defer f.data.forget()
	defer f.forgetPages(r)
	err := inPieces(t, pos, r.Length, func(pos, length int64) error {
		if f.device.block {
			return f.discardDevice(t, pos, length)
		}
		return f.punch(t, pos, length)
	})
	if err != nil {
		f.discards.Failed++
	} else {
		f.discards.Done++
		f.discards.Bytes += uint64(r.Length)
	}
	if err == nil || unsupported(err) {
		return nil
	}
	return f.fail("discard", pos, err)
}

// DiscardCounts tells what became of the discards that were not ignored, as QEMU counts them: those that nobody can take have failed,
// though clients are told otherwise. It implements blockcore.DiscardCounter.
func (f *File) DiscardCounts() blockcore.DiscardCounts { return f.discards }

func (f *File) discardDevice(t *blockcore.Task, pos, length int64) error {
	if f.lacks.discard.Load() {
		return unix.ENOTSUP
	}
	err := t.Block(func() error { return f.system.discard(f.fd, pos, length) })
	if unsupported(err) {
		f.lacks.discard.Store(true)
	}
	return err
}
