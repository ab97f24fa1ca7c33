package harness

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/bench/server"
)

const fileChunk = 1 << 20

// image is the file that all servers serve. It is written once from end to end, so that
// no hole and no unwritten extent makes a read cheaper or a write dearer.
type image struct {
	// Immutable.
	path      string
	sizeBytes int64
}

func createImage(path string, sizeBytes int64) (*image, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating the file to serve: %w", err)
	}
	defer f.Close()
	im := &image{path: path, sizeBytes: sizeBytes}
	if err := im.write(f); err != nil {
		return nil, errors.Join(fmt.Errorf("creating the file to serve: %w", err), im.remove())
	}
	return im, nil
}

func (im *image) write(f *os.File) error {
	if err := unix.Fallocate(int(f.Fd()), 0, 0, im.sizeBytes); err != nil {
		return err
	}
	chunk := make([]byte, fileChunk)
	for i := range chunk {
		chunk[i] = byte(i*7 + i>>8)
	}
	for at := int64(0); at < im.sizeBytes; at += fileChunk {
		if _, err := f.WriteAt(chunk[:min(fileChunk, im.sizeBytes-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

func (im *image) remove() error { return os.Remove(im.path) }

// prepare puts the page cache into the state that the storage wants: all of the file in
// it, or nothing.
func (im *image) prepare(storage server.Storage) error {
	f, err := os.Open(im.path)
	if err != nil {
		return fmt.Errorf("preparing the file: %w", err)
	}
	defer f.Close()
	switch storage {
	case server.Cached:
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, fileChunk))
	case server.Direct:
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		return fmt.Errorf("preparing the file: %w", err)
	}
	return nil
}

// settle writes back what a sample left dirty, so that the next does not pay for it.
func (im *image) settle() error {
	f, err := os.Open(im.path)
	if err != nil {
		return fmt.Errorf("settling the file: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("settling the file: %w", err)
	}
	return nil
}
