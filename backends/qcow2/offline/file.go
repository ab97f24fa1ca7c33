package offline

import (
	"errors"
	"io"
	"os"
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

// readAt fills p; what lies behind the end of the file is zeroes.
func readAt(f io.ReaderAt, p []byte, at int64) error {
	n, err := f.ReadAt(p, at)
	if n < len(p) && err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(p[n:])
	return nil
}
