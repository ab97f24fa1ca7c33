package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// reserveShare is what part of the free space may be reserved at once: the rest is for others.
const reserveShare = 16

// reserve gives a new part of the file its place on the disk at once, if the file system is ext4 and has plenty. A buffered write to a hole has ext4
// set aside each block of it by itself, and find a place when it writes back: of 64 KiB written behind the end that was a third of all processor
// time, and the file comes to lie in many pieces. XFS does the like by itself, others gain nothing, and on tmpfs it would be memory. What
// is left at the end is cut off with the rest of what was too long. It fails in silence: then the part stays a hole.
func (f *File) reserve(off, length int64) {
	if f.device.fileSystem != unix.EXT4_SUPER_MAGIC {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &fs); err != nil || fs.Bsize <= 0 || int64(fs.Bavail)/reserveShare < length/fs.Bsize {
		return
	}
	_ = f.system.reserve(f.fd, off, length)
}

// Reserve gives a part of the file its place on the disk, whatever the file system: that was asked for. A device has no places to give.
func (f *File) Reserve(t *blockcore.Task, r blockcore.Range) error {
	if f.device.block || f.readOnly {
		return fmt.Errorf("reserve %s: %w", f.path, unix.ENOTSUP)
	}
	if r.Length == 0 {
		return nil
	}
	err := t.Block(func() (err error) {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = f.system.reserve(f.fd, f.base+r.Offset, r.Length)
		}
		return err
	})
	f.data.forget()
	if err != nil {
		return fmt.Errorf("reserve %d bytes of %s: %w", r.Length, f.path, err)
	}
	return nil
}
