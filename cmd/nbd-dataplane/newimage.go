package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/control"
)

// createImage makes an image above another one for a monitor, in QEMU's words. undo removes a file that was not there before.
func createImage(what control.NewImage) (undo func() error, err error) {
	switch what.Format {
	case formatQcow2:
	case "raw":
		return nil, errors.New("Backing file not supported for file format 'raw'")
	default:
		return nil, fmt.Errorf("Unknown file format '%s'", what.Format)
	}
	backing := what.Backing
	if _, isURL := protocolOf(backing); !isURL && sameFile(backing, what.Path) {
		return nil, errors.New("Error: Trying to create an image with the same filename as the backing file")
	}
	undo = func() error { return nil }
	switch there := exists(what.Path); {
	case there && what.Exclusive:
		return nil, fmt.Errorf("'%s' is there already; choose another name, or say the file to have it made anew", what.Path)
	case !there:
		undo = func() error { return os.Remove(what.Path) }
	}
	file, err := (&imageCreate{}).createFile(what.Path)
	if err != nil {
		return nil, err
	}
	err = offline.Create(offline.Disk{File: file.File}, nil,
		offline.CreateOptions{SizeBytes: what.SizeBytes, Backing: backing, BackingFormat: what.BackingFormat}, nil)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(createError(err), undo())
	}
	return undo, nil
}

// sameFile reports whether two names are of one file.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
