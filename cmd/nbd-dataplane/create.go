package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/internal/keyval"
)

// create makes the file of an image that is missing, for --create, as image create does. A plain file of this machine is made when it is opened.
func (s *session) create(img *image) error {
	if !img.creates() || img.node == nil && img.nfs == nil && len(s.o.createOptions) == 0 {
		return nil
	}
	path := img.path()
	err := s.claim(path)
	if img.nfs != nil && errors.Is(err, fs.ErrExist) {
		return nil // there is nothing to do
	}
	if err == nil {
		err = s.claimData(path)
	}
	if err == nil {
		t := &imageCreate{path: path, sizeText: fmt.Sprint(img.raw.CreateBytes), format: "raw", options: s.o.createOptions, quiet: true}
		if img.node != nil && img.nodeKind == "" {
			t.format = formatQcow2
		}
		err = t.run()
	}
	if err != nil {
		return openError(img.display, fmt.Errorf("--create: %s", strings.TrimPrefix(err.Error(), path+": ")))
	}
	return nil
}

// path is the name of the file that the image lies in.
func (img *image) path() string {
	if img.nfs != nil {
		return img.nfs.URL()
	}
	return img.raw.Path
}

// claim makes a file that nobody else has made: it is filled, and taken away if the start fails.
func (s *session) claim(path string) error {
	file, _, err := newStorage(path, true, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !nfs.IsURL(path):
		return fmt.Errorf("make %s: %s; make the directory first", path, pathText(err))
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("make %s: %w", path, fs.ErrExist)
	case err != nil:
		return fmt.Errorf("make %s: %s", path, openText(path, err))
	}
	s.made = append(s.made, path)
	return file.Close()
}

// claimData is claim for the external data file that the options name: one that is there is not written over.
func (s *session) claimData(image string) error {
	name := ""
	for _, text := range s.o.createOptions {
		set, err := keyval.Parse(text, "")
		if err != nil {
			return err
		}
		name = set.TakeOr("data_file", name)
	}
	if name == "" {
		return nil
	}
	return s.claim(dataFileOf(image, name))
}
