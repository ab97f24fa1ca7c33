package offline

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// File is what an image lies in. Reads behind its end return io.EOF; writes there make it longer.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Size is the length of the file, in bytes.
	Size() (int64, error)
	// Truncate makes the file that long. What it gains reads as zeroes.
	Truncate(sizeBytes int64) error
	// Sync returns when all that was written is on stable storage.
	Sync() error
}

// Disk is a File of the file system.
type Disk struct{ *os.File }

// Size is the length of a file, or of a block device.
func (d Disk) Size() (int64, error) { return d.Seek(0, io.SeekEnd) }

// Allocate sets space apart with fallocate(2).
func (d Disk) Allocate(at, lengthBytes int64) error {
	return unix.Fallocate(int(d.Fd()), 0, at, lengthBytes)
}

// readAt fills p; what lies behind the end of the file is zeroes.
func readAt(f io.ReaderAt, p []byte, at int64) error {
	n, err := f.ReadAt(p, at)
	if n < len(p) && err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(p[n:])
	return nil
}
