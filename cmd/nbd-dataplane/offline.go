package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/imagelock"
)

// newImage is the command for images that nobody serves: qemu-img's, with its options.
func newImage(c console) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image COMMAND",
		Short: "Create, describe, check and change images that nobody uses",
		Long: "Works on image files that nobody serves; the commands, their options and their output are qemu-img's, as far as they are here.\n" +
			"FILE is a path, or nfs://HOST/EXPORT/FILE. The name of a backing file that does not begin with / counts from the image.\n" +
			"An image that a server or a virtual machine uses is locked, and refused; 'ctl' has what can be done with those.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("image %s: there is no such command; see '%s --help'", printable(args[0]), cmd.CommandPath())
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(newImageCreate(c), newImageInfo(c), newImageCheck(c), newImageMap(c), newImageSnapshot(c), newImageResize(c), newImageRebase(c), newImageBitmap(c))
	for _, sub := range cmd.Commands() {
		sub.DisableFlagsInUseLine = true
		sub.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return failed(flagError(cmd, err)) })
	}
	return cmd
}

// failed gives an error qemu-img's status: it has only the one for what goes wrong, be it the command line.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{statusFailed, err}
}

// oneImage wants one file name.
func oneImage(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return failed(fmt.Errorf("Expecting one image file name; see '%s --help'", cmd.CommandPath()))
	}
	return nil
}

// imageFile is an image's file, opened and locked.
type imageFile struct {
	storage
	path   string
	format string
	driver string // the format as it is called: a file that is used without one has the name of its protocol
	made   bool   // it was not there before
	place  imagePlace
}

// closing closes a file at the end of what changes it: what could not be stored is an error.
func (f *imageFile) closing(path string, err *error) {
	if failure := f.Close(); failure != nil && *err == nil {
		*err = failed(fmt.Errorf("Could not write to '%s': %s", path, pathText(failure)))
	}
}

// openFile opens and locks a file and finds out what format it has.
func (f *imageFlags) openFile(name string, write bool) (*imageFile, error) {
	if err := f.judgeCaches(); err != nil {
		return nil, err
	}
	p, err := f.find(name)
	if err != nil {
		return nil, err
	}
	file, err := f.openPlace(p, write)
	if err == nil {
		err = f.judgeOthers(file)
	}
	if err != nil {
		return nil, couldNot(name, err)
	}
	return file, nil
}

// judgeOthers looks whether what the options say an image stands on is there.
func (f *imageFlags) judgeOthers(file *imageFile) (err error) {
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	p := &file.place
	switch {
	case p.backing != nil && f.noBacking:
		return errors.New("Block format 'qcow2' does not support the option 'backing.driver'")
	case p.data != nil:
		h, err := offline.ReadHeader(file.storage)
		if err == nil && !h.Has(format.IncompatibleDataFile) {
			return errors.New("'data-file' can only be set for images with an external data file")
		}
	}
	for _, other := range []struct {
		what  string
		place *imagePlace
	}{{"", p.data}, {"Could not open backing file: ", p.backing}} {
		if other.place == nil {
			continue
		}
		below, err := (&imageFlags{share: true}).openPlace(*other.place, false)
		if err == nil {
			err = (&imageFlags{share: true}).judgeOthers(below)
		}
		if err != nil {
			return fmt.Errorf("%s%w", other.what, err)
		}
		below.Close()
	}
	return nil
}

// openPlace opens and locks the file of a place and finds out what format it has.
func (f *imageFlags) openPlace(p imagePlace, write bool) (*imageFile, error) {
	share := p.share || f.share
	if write && share {
		return nil, errors.New("force-share=on can only be used with read-only images")
	}
	file, err := openStorage(p.path, write, share, f.warn)
	if err != nil {
		text := openText(p.path, err)
		if !nfs.IsURL(p.path) {
			text = fmt.Sprintf("Could not open '%s': %s", p.path, text) // QEMU's driver says it as well
		}
		return nil, errors.New(text)
	}
	opened := &imageFile{storage: file, path: p.name(f.options), format: p.format, place: p}
	within, err := p.within(file)
	if err == nil {
		opened.storage = within
		err = opened.prepare(p.path, write, share)
	}
	if err != nil {
		opened.Close()
		return nil, err
	}
	return opened, nil
}

func (f *imageFile) prepare(path string, write, share bool) error {
	err := f.hold(write, share)
	var conflict *imagelock.ConflictError
	switch {
	case errors.As(err, &conflict):
		return fmt.Errorf("%s. Is another process using the image [%s]?", conflict.Message(), path)
	case err != nil:
		return err
	}
	if f.format == "" {
		size, err := f.Size()
		if err != nil {
			return err
		}
		f.format = sniffIn(f, size)
	}
	f.driver = f.format
	switch {
	case f.format == "file", f.format == "host_device":
		f.format = "raw"
		return nil
	case f.format == "raw", f.format == formatQcow2:
		return nil
	case otherFormats[f.format]:
		return fmt.Errorf("the image format %s is not supported by this version", f.format)
	}
	return fmt.Errorf("Unknown driver '%s'", f.format)
}

// open opens a qcow2 image.
func (f *imageFile) open(path string, mode format.Mode) (*offline.Image, error) {
	im, err := offline.Open(f.storage, mode)
	if err != nil {
		return nil, couldNot(path, err)
	}
	return im, nil
}

// couldNot is an error about an image as a whole.
func couldNot(path string, err error) error {
	var known *format.Error
	text := err.Error()
	if errors.As(err, &known) && known.Hint != "" {
		text += "\n" + known.Hint
	}
	return failed(fmt.Errorf("Could not open '%s': %s", path, text))
}

// pathText is the C library's text for what the file system said.
func pathText(err error) string {
	var errno syscall.Errno
	var path *fs.PathError
	switch {
	case errors.As(err, &errno):
		return strerror(errno)
	case errors.As(err, &path):
		return path.Err.Error()
	}
	return err.Error()
}

// errnoText is "-5 (Input/output error)", as qemu-img has it.
func errnoText(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	return fmt.Sprintf("-%d (%s)", int(errno), strerror(errno))
}
