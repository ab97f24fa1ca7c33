package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/keyval"
)

// imageCreate is one run of image create.
type imageCreate struct {
	c                      console
	warn                   func(string) // may be nil
	path, sizeText         string
	format                 string
	options                []string
	backing, backingFormat string
	backingGiven           bool // -b is there
	unchecked              bool // nobody looks at the backing file
	quiet, progress        bool
	exclusive              bool // no file is there
	objects                []string

	given map[string]string // options by name, as they are printed
	what  offline.CreateOptions

	attributes createAttributes
}

func newImageCreate(c console) *cobra.Command {
	t := &imageCreate{warn: c.warn, c: c}
	cmd := &cobra.Command{
		Use:   "create [-q] [-f FMT] [-b FILE [-F FMT]] [-u] [-o OPTIONS] FILE [SIZE]",
		Short: "Create an image",
		Long: "Creates an image, over what is there. The format is qcow2 if -f says so or the name ends in .qcow2, and raw otherwise. SIZE is in bytes, or with\n" +
			"k, M, G, T, P or E behind it; with a backing file it may be left out. -o help lists the options of the format.",
		Example: "  nbd-dataplane image create disk.qcow2 20G\n" +
			"  nbd-dataplane image create -b base.qcow2 -F qcow2 overlay.qcow2\n" +
			"  nbd-dataplane image create -f qcow2 -o cluster_size=1M,preallocation=metadata disk.img 1T",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 2 || len(args) == 0 && !t.wantsHelp() {
				return failed(fmt.Errorf("Expecting image file name; see '%s --help'", cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			t.backingGiven = cmd.Flags().Changed("backing")
			if t.wantsHelp() {
				return t.help(args)
			}
			t.path = args[0]
			if len(args) == 2 {
				t.sizeText = args[1]
			}
			return t.run()
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&t.format, "format", "f", "", "`FMT` of the image, qcow2 or raw")
	flags.StringVarP(&t.backing, "backing", "b", "", "`FILE` below the image: what it does not have itself is read there")
	flags.StringVarP(&t.backingFormat, "backing-format", "F", "", "`FMT` of the backing file")
	flags.BoolVarP(&t.unchecked, "backing-unsafe", "u", false, "do not look at the backing file")
	flags.StringArrayVarP(&t.options, "options", "o", nil, "`OPTIONS` of the format, NAME=VALUE, or NAME of a switch, with commas in between; 'help' lists them")
	flags.BoolVarP(&t.quiet, "quiet", "q", false, "print errors only")
	flags.BoolVarP(&t.progress, "progress", "p", false, "show how much is done")
	objectFlag(cmd, &t.objects)
	flags.SortFlags = false
	completes(cmd, "format", "qcow2", "raw")
	completes(cmd, "backing-format", "qcow2", "raw")
	return cmd
}

// run creates the image.
func (t *imageCreate) run() error {
	if t.format == "" {
		t.format = formatByName(t.path)
	}
	if err := t.read(); err != nil {
		return t.wrong(err)
	}
	if err := t.findSize(); err != nil {
		return err
	}
	if !t.quiet {
		fmt.Fprintln(t.c.out, t.formatting())
	}
	if t.format == "raw" {
		return t.createRaw()
	}
	if err := t.finish(); err != nil {
		return t.wrong(err)
	}
	return t.createQcow2()
}

// formatByName is the format that a new file of that name is to have.
func formatByName(path string) string {
	if options, _, err := nfs.ParseURL(path); err == nil {
		path = options.Path
	}
	if strings.HasSuffix(path, ".qcow2") {
		return "qcow2"
	}
	return "raw"
}

func (t *imageCreate) wrong(err error) error {
	text := err.Error()
	var param *keyval.Error
	if errors.As(err, &param) && param.Hint != "" {
		text += "\n" + param.Hint
	}
	return failed(fmt.Errorf("%s: %s", t.path, text))
}

// createFile opens a new file; what was there is gone.
func (t *imageCreate) createFile(path string) (*imageFile, error) {
	if _, isURL := protocolOf(path); isURL && !strings.HasPrefix(path, "file:") && !nfs.IsURL(path) {
		return nil, fmt.Errorf("Unknown protocol '%s'", strings.SplitN(path, ":", 2)[0])
	}
	f, made, err := newStorage(path, t.exclusive, t.warn)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("Could not create '%s': %s", path, openText(path, err))
	}
	file := &imageFile{storage: f, path: path, format: "raw", made: made}
	err = file.prepare(path, true, false)
	if err == nil {
		err = f.Truncate(0) // only now: somebody could have been using it
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	t.attributes.give(f)
	return file, nil
}

func (t *imageCreate) createQcow2() (err error) {
	if err := checkSpace(t.path, t.what.Preallocation); err != nil {
		return t.wrong(err)
	}
	file, err := t.createFile(t.path)
	if err != nil {
		return t.wrong(err)
	}
	defer file.closing(t.path, &err)
	var data offline.File
	if t.what.DataFile != "" {
		name := dataFileOf(t.path, t.what.DataFile)
		dataFile, failure := t.createFile(name)
		if failure != nil {
			return t.wrong(failure)
		}
		defer dataFile.closing(name, &err)
		data = dataFile.storage
	}
	bar := newProgressBar(t.c.err, t.progress)
	err = offline.Create(file.storage, data, t.what, bar.show)
	bar.end()
	if err != nil {
		file.discard() // what was there is gone already
		return t.wrong(createError(err))
	}
	return nil
}

// createError is QEMU's text.
func createError(err error) error {
	var known *format.Error
	if errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("Could not write to the image: %s", pathText(err))
}

// createRaw makes a file of that size.
func (t *imageCreate) createRaw() (err error) {
	if value, given := t.given["preallocation"]; given {
		if err := setPreallocation(&t.what, value); err != nil || t.what.Preallocation == offline.PreallocationMetadata {
			return t.wrong(fmt.Errorf("Parameter 'preallocation' does not accept value '%s'", value))
		}
	}
	if err := checkSpace(t.path, t.what.Preallocation); err != nil {
		return t.wrong(err)
	}
	file, err := t.createFile(t.path)
	if err != nil {
		return t.wrong(err)
	}
	defer file.closing(t.path, &err)
	size := t.what.SizeBytes
	if err := file.Truncate(size); err != nil {
		return t.wrong(fmt.Errorf("Could not resize file: %s", pathText(err)))
	}
	bar := newProgressBar(t.c.err, t.progress)
	err = offline.Preallocate(file.storage, 0, size, t.what.Preallocation, bar.show)
	bar.end()
	if err != nil {
		return t.wrong(fmt.Errorf("Could not preallocate data for the new file: %s", pathText(err)))
	}
	return nil
}
