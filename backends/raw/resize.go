package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// Resize makes a file longer or shorter. A block device has the size that somebody else has given it: the disk may take in what was
// added there, or leave the end of it alone. Nothing else runs meanwhile. It implements blockcore.Resizer.
//
// Analogous to QEMU's raw_co_truncate.
func (f *File) Resize(t *blockcore.Task, sizeBytes int64) error {
	if f.fixed {
		return fmt.Errorf("resize %s: the disk is a window of fixed size: %w", f.path, unix.ENOTSUP)
	}
	var eof int64
	err := t.Block(func() (err error) {
		eof, err = f.setEnd(f.base + sizeBytes)
		return err
	})
	if err != nil {
		return fmt.Errorf("resize %s: %w", f.path, err)
	}
	f.data.forget()
	f.size.Store(sizeBytes)
	f.eof.Store(eof)
	return nil
}

// setEnd has a file end at end, makes sure that a block device reaches that far, and returns where it ends. It may block.
func (f *File) setEnd(end int64) (eof int64, err error) {
	if !f.device.block {
		return end, truncate(f.fd, end)
	}
	now, err := inspectBlock(f.fd, 0)
	if err == nil && end > now.sizeBytes {
		err = fmt.Errorf("the block device has %d bytes; make it larger first: %w", now.sizeBytes, unix.EINVAL)
	}
	return now.sizeBytes, err
}

func truncate(fd int, end int64) error {
	for {
		if err := unix.Ftruncate(fd, end); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
