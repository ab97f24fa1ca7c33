package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// holes tells which parts of a file between two offsets are holes. What is behind the end of the file is one; where the file system cannot tell there
// are none.
func holes(f *os.File, from, to int64, visit func(at, length int64, hole bool) error) error {
	for at := from; at < to; {
		data, err := seek(f, at, unix.SEEK_DATA, to)
		if err != nil {
			return visit(at, to-at, false)
		}
		if data > at {
			if err := visit(at, data-at, true); err != nil {
				return err
			}
			at = data
			continue
		}
		hole, err := seek(f, at, unix.SEEK_HOLE, to)
		if err != nil || hole <= at {
			hole = to
		}
		if err := visit(at, hole-at, false); err != nil {
			return err
		}
		at = hole
	}
	return nil
}

// seek is lseek(2) with a limit; there is nothing behind the last data.
func seek(f *os.File, at int64, whence int, limit int64) (int64, error) {
	n, err := unix.Seek(int(f.Fd()), at, whence)
	if errors.Is(err, unix.ENXIO) {
		return limit, nil
	}
	return min(n, limit), err
}
