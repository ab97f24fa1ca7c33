package harness

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/bench/server"
)

// pageBytes is how much is written and read at a time when the file is prepared. In one
// large piece it would be faster, and the page cache would hold it in large folios: then
// ext4 goes over all the blocks of a folio for each 4 KiB that is written, which took 32
// us a write where single pages take 3, and all servers look alike. A file that was
// written in small pieces, as disks are, has small ones.
const pageBytes = 4096

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
	page := make([]byte, pageBytes)
	for i := range page {
		page[i] = byte(i*7 + i>>8)
	}
	for at := int64(0); at < im.sizeBytes; at += pageBytes {
		if _, err := f.WriteAt(page[:min(pageBytes, im.sizeBytes-at)], at); err != nil {
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
	case server.Cached, server.NFS:
		err = warm(f)
	case server.Direct:
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		return fmt.Errorf("preparing the file: %w", err)
	}
	return nil
}

// warm reads the file a page at a time, told that there is no order in it, so that what
// has to be brought in comes in single pages.
func warm(f *os.File) error {
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	page := make([]byte, pageBytes)
	for {
		_, err := f.Read(page)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// settle writes back what a sample left dirty, so that the next does not pay for it.
func settle(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("settling the file: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("settling the file: %w", err)
	}
	return nil
}
