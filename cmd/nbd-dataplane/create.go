package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"nbd-dataplane/internal/keyval"
)

// create makes the file of an image that is missing, for --create, as image create does. A plain file is made when it is opened.
func (s *session) create(img *image) error {
	if !img.creates() || img.node == nil && len(s.o.createOptions) == 0 {
		return nil
	}
	err := s.claim(img.raw.Path)
	if err == nil {
		err = s.claimData()
	}
	if err == nil {
		t := &imageCreate{path: img.raw.Path, sizeText: fmt.Sprint(img.raw.CreateBytes), format: "raw", options: s.o.createOptions, quiet: true}
		if img.node != nil {
			t.format = formatQcow2
		}
		err = t.run()
	}
	if err != nil {
		return openError(img.display, fmt.Errorf("--create: %s", strings.TrimPrefix(err.Error(), img.raw.Path+": ")))
	}
	return nil
}

// claim makes a file that nobody else has made: it is filled, and taken away if the start fails.
func (s *session) claim(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make %s: %s; make the directory first", path, pathText(err))
	}
	if err != nil {
		return fmt.Errorf("make %s: %s", path, pathText(err))
	}
	s.made = append(s.made, path)
	return f.Close()
}

// claimData is claim for the external data file that the options name: one that is there is not written over.
func (s *session) claimData() error {
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
	return s.claim(name)
}
