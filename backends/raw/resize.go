package raw

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// Resize has a file end where the disk is to end: what is new is a hole. A block device cannot be made longer from here; when it was made
// longer elsewhere, that is taken over. The node is drained.
func (f *File) Resize(t *blockcore.Task, sizeBytes int64) error {
	switch {
	case f.readOnly:
		return fmt.Errorf("resize %s: Image is read-only: %w", f.path, unix.EACCES)
	case f.options.SizeBytes > 0:
		return fmt.Errorf("resize %s: Cannot resize fixed-size raw disks: %w", f.path, unix.ENOTSUP)
	case sizeBytes > math.MaxInt64-f.base-alignMax:
		return fmt.Errorf("resize %s: Disk size too large for the chosen offset: %w", f.path, unix.EINVAL)
	}
	end := f.base + sizeBytes
	err := t.Block(func() (err error) {
		if f.device.block {
			end, err = f.deviceEnd(end)
			return err
		}
		return blockcore.DuringStep("Could not resize file", f.truncate(end))
	})
	if err != nil {
		return fmt.Errorf("resize %s: %w", f.path, err)
	}
	f.eof, f.device.sizeBytes = end, end
	size, _ := roundUp(end-f.base, max(sectorBytes, f.limits.Align))
	f.size.Store(size)
	f.data.forget()
	f.remap(t)
	return nil
}

// Extend makes a file longer while it is in use: what is new reads as zeroes, and has room on the disk where that is cheap (reserve.go).
func (f *File) Extend(t *blockcore.Task, toBytes int64) error {
	for f.extending {
		t.Wait(&f.extenders)
	}
	switch {
	case toBytes <= f.Size():
		return nil
	case f.readOnly || f.device.block || f.options.SizeBytes > 0 || toBytes > math.MaxInt64-f.base-alignMax:
		return fmt.Errorf("extend %s: it ends at %d bytes: %w", f.path, f.Size(), unix.ENOSPC)
	}
	f.extending = true
	defer func() {
		f.extending = false
		f.extenders.WakeAll()
	}()
	end := f.base + toBytes
	err := t.Block(func() error {
		// Somebody else may have made it longer still, and nothing is to be cut off.
		if d, err := inspect(f.fd); err != nil || d.sizeBytes >= end {
			end = max(end, d.sizeBytes)
			return err
		}
		before := f.device.sizeBytes
		if err := f.truncate(end); err != nil {
			return err
		}
		f.reserve(before, end-before)
		return nil
	})
	if err != nil {
		return fmt.Errorf("extend %s: %w", f.path, err)
	}
	f.eof, f.device.sizeBytes = end, end
	size, _ := roundUp(end-f.base, max(sectorBytes, f.limits.Align))
	f.size.Store(size)
	f.data.forget()
	f.views.extend(end)
	return nil
}

// remap gives up the views of a file that has another end now; what is busy is soon mapped again.
func (f *File) remap(t *blockcore.Task) {
	if f.views == nil {
		return
	}
	views := f.views.takeAll()
	f.views = nil
	_ = t.Block(func() error {
		closeViews(views)
		if mappable(&f.options, f.fd, f.device) {
			f.views = newViews(&f.options, f.fd, f.device)
		}
		return nil
	})
}

// deviceEnd returns how long a block device is, if that is enough. As in QEMU a device that is longer than was asked for is taken as
// it is.
func (f *File) deviceEnd(wanted int64) (int64, error) {
	d, err := inspect(f.fd)
	if err != nil {
		return 0, err
	}
	if wanted > d.sizeBytes {
		return 0, fmt.Errorf("Cannot grow device files: it has %d bytes: %w", d.sizeBytes, unix.EINVAL)
	}
	return d.sizeBytes, nil
}

// truncate changes the length of a file, for which it uses one more permission for a moment.
func (f *File) truncate(end int64) error {
	if f.lockFD >= 0 {
		resizing := f.locks.With(imagelock.Set{Uses: blockcore.PermResize})
		if err := widenLocks(kernelLocks{}, f.lockFD, f.path, f.locks, resizing); err != nil {
			return err
		}
		defer narrowLocks(kernelLocks{}, f.lockFD, resizing, f.locks)
	}
	return f.system.truncate(f.fd, end)
}
