package main

import (
	"errors"
	"fmt"
	"strings"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/internal/keyval"
)

// findSize finds the size of the new disk: as it is given, or as large as the backing file.
func (t *imageCreate) findSize() error {
	if t.sizeText != "" {
		if t.given["size"] != "" {
			return t.wrong(errors.New("The image size must be specified only once"))
		}
		size, err := parseDiskSize(t.sizeText)
		if err != nil {
			return failed(err)
		}
		t.what.SizeBytes = size
	}
	known := t.sizeText != "" || t.given["size"] != ""
	if backing := t.given["backing_file"]; backing != "" {
		if err := t.lookAtBacking(backing, known); err != nil {
			return t.wrong(err)
		}
		known = known || !t.unchecked
	}
	if !known {
		return t.wrong(errors.New("Image creation needs a size parameter"))
	}
	return nil
}

// lookAtBacking opens the backing file, whose size is the new disk's unless that is known.
func (t *imageCreate) lookAtBacking(name string, known bool) error {
	full := besideImage(t.path, name)
	if p, err := (&imageFlags{format: t.given["backing_fmt"]}).find(full); err == nil && sameFile(p.path, t.path) {
		return errors.New("Error: Trying to create an image with the same filename as the backing file")
	}
	if t.unchecked {
		return nil
	}
	flags := &imageFlags{format: t.given["backing_fmt"], share: true}
	info, err := flags.describeOne(full)
	if err != nil {
		text := err.Error()
		if !strings.HasPrefix(full, "json:") && !nfs.IsURL(full) && !exists(full) {
			text = fmt.Sprintf("Could not open '%s': No such file or directory", full)
		}
		return fmt.Errorf("%s\nCould not open backing image.", text)
	}
	if flags.format == "" {
		return fmt.Errorf("Backing file specified without backing format\nDetected format of %s.", info.Format)
	}
	if !known {
		t.what.SizeBytes = int64(info.VirtualSize)
	}
	return nil
}

// parseDiskSize reads a size as qemu-img's commands have it.
func parseDiskSize(text string) (int64, error) {
	size, err := keyval.Size("size", text)
	if err != nil {
		return 0, errors.New("Invalid image size specified. You may use k, M, G, T, P or E suffixes for\nkilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")
	}
	return size, nil
}
