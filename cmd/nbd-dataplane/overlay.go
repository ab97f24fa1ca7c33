package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/qmp"
)

// temporaryDir is where overlays of -s lie without TMPDIR: in QEMU's place for what may be large.
const temporaryDir = "/var/tmp"

// openOverlay opens an image read-only, and above it a temporary one that takes all writes (-s). Its file has no name any more when it is used, so
// that nothing is left of it however the server ends.
func (s *session) openOverlay(img *image, c *blockcore.AioContext, name string) (*blockcore.Node, error) {
	base := *img
	base.raw.ReadOnly = true
	below, err := s.openImage(&base, c, name+"-base")
	if err != nil {
		return nil, err
	}
	file, err := makeTemporary(below.Size())
	if err != nil {
		return nil, openError(img.display, err)
	}
	s.temporary = append(s.temporary, file) // open to the end: its name refers to it
	v, err := img.overlayOptions(name, below.Name(), file)
	if err != nil {
		return nil, openError(img.display, err)
	}
	n, err := s.opener.AddNode(context.Background(), v, c)
	if err != nil {
		return nil, openError(img.display, imageError(err))
	}
	img.probe, img.isNull, img.nfs, img.node, img.nodeKind = false, false, nil, &keyval.Set{}, ""
	return n, nil
}

// makeTemporary makes an image as large as the one below it.
func makeTemporary(sizeBytes int64) (*os.File, error) {
	dir := os.Getenv("TMPDIR")
	if dir == "" {
		dir = temporaryDir
	}
	file, err := os.CreateTemp(dir, "vl.*")
	if err != nil {
		name := dir
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			name = path.Path
		}
		return nil, wrong(fmt.Sprintf("--snapshot: make a temporary file in %s: %s; name another directory in TMPDIR", dir, pathText(err)),
			fmt.Sprintf("Could not open temporary file '%s': %s", name, pathText(err)))
	}
	err = os.Remove(file.Name())
	if err == nil {
		const sector = 512
		size := (sizeBytes + sector - 1) / sector * sector
		err = offline.Create(offline.Disk{File: file}, nil, offline.CreateOptions{SizeBytes: size}, nil)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("--snapshot: make a temporary image in %s: %w", dir, err)
	}
	return file, nil
}

// overlayOptions are the options of the temporary image. Nobody needs it on stable storage.
func (img *image) overlayOptions(name, below string, file *os.File) (qmp.Value, error) {
	options := map[string]any{
		"driver": formatQcow2, "node-name": name, "read-only": img.raw.ReadOnly, "cache": map[string]any{"no-flush": true}, "backing": below,
		"file": map[string]any{"driver": "file", "filename": fmt.Sprintf("/proc/self/fd/%d", file.Fd())},
	}
	if img.raw.Discard == raw.DiscardUnmap {
		options["discard"] = "unmap"
	}
	switch img.raw.DetectZeroes {
	case raw.DetectOn:
		options["detect-zeroes"] = "on"
	case raw.DetectUnmap:
		options["detect-zeroes"] = "unmap"
	}
	text, err := json.Marshal(options)
	if err != nil {
		return qmp.Value{}, err
	}
	return qmp.ParseValue(text)
}
