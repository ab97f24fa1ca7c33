package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/control"
)

// creationMax is how long a monitor waits for an NFS server that does not answer while an image is made there.
const creationMax = 30 * time.Second

// patient is the name of a file for which nobody waits for ever.
func patient(name string) string {
	options, _, err := nfs.ParseURL(name)
	if err != nil || options.Timeout != 0 {
		return name
	}
	options.Timeout = creationMax
	return options.URL()
}

// notInUse refuses to make a file anew on an NFS server that a node has open; one of this machine is locked.
func notInUse(file string, inUse map[string]string) error {
	for node, name := range inUse {
		if nfs.IsURL(name) && sameFile(name, file) {
			return fmt.Errorf("'%s' is the file of node '%s'; choose another name", file, node)
		}
	}
	return nil
}

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
	if sameFile(backing, what.Path) {
		return nil, errors.New("Error: Trying to create an image with the same filename as the backing file")
	}
	if err := notInUse(what.Path, what.InUse); err != nil {
		return nil, err
	}
	file, err := (&imageCreate{exclusive: what.Exclusive}).createFile(patient(what.Path))
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("'%s' is there already; choose another name, or say the file to have it made anew", what.Path)
	}
	if err != nil {
		return nil, err
	}
	undo = func() error { return nil }
	if file.made {
		undo = func() error { return removeStorage(what.Path) }
	}
	err = offline.Create(file.storage, nil, offline.CreateOptions{SizeBytes: what.SizeBytes, Backing: backing, BackingFormat: what.BackingFormat}, nil)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(createError(err), undo())
	}
	return undo, nil
}
