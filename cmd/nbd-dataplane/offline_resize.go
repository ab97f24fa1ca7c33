package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/keyval"
)

// imageResize is one run of image resize.
type imageResize struct {
	imageFlags
	c             console
	preallocation string
	shrink        bool
	progress      bool
}

func newImageResize(c console) *cobra.Command {
	t := &imageResize{c: c}
	cmd := &cobra.Command{
		Use:   "resize [-q] [-f FMT] [--preallocation=MODE] [--shrink] [--image-opts] FILE [+|-]SIZE",
		Short: "Make the disk in an image longer or shorter",
		Long: "Makes the disk in an image as long as SIZE, or longer or shorter by it. What is cut off is lost, which is why that needs --shrink. SIZE is in\n" +
			"bytes, or with k, M, G, T, P or E behind it.",
		Example: "  nbd-dataplane image resize disk.qcow2 40G\n  nbd-dataplane image resize disk.qcow2 +10G\n  nbd-dataplane image resize --shrink disk.qcow2 -10G",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return failed(fmt.Errorf("Expecting image file name and size; see '%s --help'", cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return t.run(args[0], args[1]) },
	}
	t.add(c, cmd, "quiet format image-opts")
	cmd.Flags().StringVar(&t.preallocation, "preallocation", "off", "`MODE` for what is new: off, metadata, falloc or full")
	completes(cmd, "preallocation", "off", "metadata", "falloc", "full")
	cmd.Flags().BoolVar(&t.shrink, "shrink", false, "allow a smaller size: what is past it is lost")
	cmd.Flags().BoolVarP(&t.progress, "progress", "p", false, "show how much is done")
	return cmd
}

func (t *imageResize) run(path, sizeText string) (err error) {
	how, err := offline.ParsePreallocation(t.preallocation)
	if err != nil {
		return failed(fmt.Errorf("Invalid preallocation mode '%s'", t.preallocation))
	}
	if err := checkSpace(path, how); err != nil {
		return failed(err)
	}
	below := t.imageFlags
	below.share, below.warn = true, func(string) {}
	if all, err := below.describeAll(path); err != nil && len(all) > 0 {
		return err // of the image itself it is said when it is opened to be changed
	}
	file, err := t.openFile(path, true)
	if err != nil {
		return err
	}
	defer func() { file.closing(path, &err) }()
	target, err := t.open(path, file)
	if err != nil {
		return err
	}
	size, err := resizedTo(target.sizeBytes(), sizeText)
	switch {
	case err != nil:
		return failed(err)
	case size <= target.sizeBytes() && how != offline.PreallocationOff:
		return failed(errors.New("Preallocation can only be used for growing images"))
	case size < target.sizeBytes() && !t.shrink:
		return failed(errors.New("Use the --shrink option to perform a shrink operation."))
	}
	if part := target.resizedByServer(size, how); part > 0 {
		if target, err = t.growAsServer(target, path, part); err != nil {
			return err
		}
		file = target.file
	}
	bar := newProgressBar(t.c.err, t.progress)
	err = target.resize(offline.ResizeOptions{SizeBytes: size, Preallocation: how, Progress: bar.show})
	bar.end()
	if err != nil {
		return failed(err)
	}
	if !t.quiet {
		fmt.Fprintln(t.c.out, "Image resized.")
	}
	return nil
}

// resizedTo is a size, or a change of one.
func resizedTo(old int64, text string) (int64, error) {
	digits := strings.TrimLeft(text, "+-")
	size, err := keyval.Size("size", digits)
	if err != nil || len(text)-len(digits) > 1 {
		return 0, cmp.Or(err, error(&keyval.Error{Parameter: "size", Problem: "expects a number with no more than one sign"}))
	}
	switch text[0] {
	case '+':
		if size > math.MaxInt64-old {
			return 0, errors.New("New image size is too large")
		}
		size += old
	case '-':
		size = old - size
	}
	if size <= 0 {
		return 0, errors.New("New image size must be positive")
	}
	if size > math.MaxInt64-sectorBytes {
		return 0, errors.New("New image size is too large")
	}
	return size, nil
}

// resizable is what has a size to change: an image, or a plain file.
type resizable struct {
	im      *offline.Image // nil = a plain file
	file    *imageFile
	path    string
	backing int64
	warn    func(string)
}

func (t *imageResize) open(path string, file *imageFile) (*resizable, error) {
	r := &resizable{file: file, path: file.place.path, warn: t.warn}
	if file.format == "raw" {
		return r, nil
	}
	im, err := file.openToChange(path, t.c.err)
	if err != nil {
		return nil, err
	}
	r.im = im
	if name := im.Header().Backing; name != "" {
		if r.backing, err = file.backingSize(name, im.Header().BackingFormat()); err != nil {
			return nil, couldNot(path, fmt.Errorf("Could not open backing file: %w", err))
		}
	}
	return r, nil
}

func (r *resizable) sizeBytes() int64 {
	if r.im != nil {
		return int64(r.im.Header().SizeBytes)
	}
	size, err := r.file.Size()
	if err != nil {
		return 0
	}
	return size
}

func (r *resizable) resize(o offline.ResizeOptions) (err error) {
	if r.im == nil {
		return r.resizeRaw(o)
	}
	o.BackingBytes = r.backing
	if r.im.Header().Has(format.IncompatibleDataFile) {
		data, failure := openDataFile(&r.file.place, r.im, true, false, r.warn)
		if failure != nil {
			name := dataFileOf(r.path, r.im.Header().DataFile())
			return fmt.Errorf("Could not open '%s': %s", name, openText(name, failure))
		}
		defer func() { err = errors.Join(err, data.Close()) }()
		o.Data = data
	}
	err = r.im.Resize(o)
	var errno syscall.Errno
	var known *format.Error
	if err != nil && !errors.As(err, &known) && errors.As(err, &errno) {
		return fmt.Errorf("Could not resize the image: %s", strerror(errno))
	}
	return err
}

// resizeRaw makes a plain file longer or shorter, in sectors.
func (r *resizable) resizeRaw(o offline.ResizeOptions) error {
	o.SizeBytes = (o.SizeBytes + sectorBytes - 1) / sectorBytes * sectorBytes
	old := r.sizeBytes()
	if err := r.file.Truncate(o.SizeBytes); errors.Is(err, errFixedWindow) {
		return err
	} else if err != nil {
		return fmt.Errorf("Could not resize file: %s", pathText(err))
	}
	if o.Preallocation == offline.PreallocationMetadata {
		return errors.New("Unsupported preallocation mode 'metadata'")
	}
	if o.SizeBytes <= old {
		return nil
	}
	return offline.Preallocate(r.file.storage, old, o.SizeBytes-old, o.Preallocation, o.Progress)
}

// backingSize is the size of the disk below, whose name in the image is given.
func (f *imageFile) backingSize(name, backingFormat string) (int64, error) {
	var info *imageInfo
	var err error
	switch p := &f.place; {
	case p.noBacking:
		return 0, nil
	case p.backing != nil:
		info, err = (&imageFlags{}).describePlace(*p.backing)
	default:
		info, err = (&imageFlags{format: backingFormat}).describeOne(besideImage(p.path, name))
	}
	if err != nil {
		return 0, err
	}
	return int64(info.VirtualSize), nil
}

// openDataFile opens the external data file of an image, which is what the options say, or the image.
func openDataFile(p *imagePlace, im *offline.Image, write, share bool, warn func(string)) (storage, error) {
	if p.data == nil {
		return openStorage(dataFileOf(p.path, im.Header().DataFile()), write, share, warn)
	}
	file, err := openStorage(p.data.path, write, share || p.data.share, warn)
	if err != nil {
		return nil, err
	}
	within, err := p.data.within(file)
	if err != nil {
		file.Close()
	}
	return within, err
}
