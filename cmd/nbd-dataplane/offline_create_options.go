package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/keyval"
)

// createOption is an option of image create -o.
type createOption struct {
	name, kind, help string
	// value is what is printed when it was not given; "" = nothing.
	value string
	raw   bool // raw has it as well
	// set is nil where the file has it and not the image: see createAttributes.
	set func(o *offline.CreateOptions, value string) error
}

// createOptions are in the order in which QEMU prints what it makes.
var createOptions = []createOption{
	{"encryption", "bool (on/off)", "Encrypt the image, which this program does not: off", "", false, func(_ *offline.CreateOptions, v string) error {
		on, err := keyval.Bool("encryption", v)
		if on {
			err = errNoEncryption
		}
		return err
	}},
	{"cluster_size", "size", "qcow2 cluster size", "65536", false, func(o *offline.CreateOptions, v string) (err error) {
		o.ClusterBytes, err = keyval.Size("cluster_size", v)
		if err == nil && o.ClusterBytes == 0 {
			o.ClusterBytes = -1 // the zero value is the default
		}
		return err
	}},
	{"extended_l2", "bool (on/off)", "Extended L2 tables", "off", false, func(o *offline.CreateOptions, v string) (err error) {
		o.ExtendedL2, err = keyval.Bool("extended_l2", v)
		return err
	}},
	{"preallocation", "str", "Preallocation mode (allowed values: off, metadata, falloc, full)", "", true, setPreallocation},
	{"compression_type", "str", "Compression method used for image cluster compression", "zlib", false, setCompression},
	{"size", "size", "Virtual disk size", "", true, func(o *offline.CreateOptions, v string) (err error) {
		o.SizeBytes, err = keyval.Size("size", v)
		return err
	}},
	{"compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])", "", false, setCompat},
	{"backing_file", "str", "File name of a base image", "", false, func(o *offline.CreateOptions, v string) error {
		o.Backing = v
		return nil
	}},
	{"backing_fmt", "str", "Image format of the base image", "", false, func(o *offline.CreateOptions, v string) error {
		o.BackingFormat = v
		return nil
	}},
	{"data_file", "str", "File name of an external data file", "", false, func(o *offline.CreateOptions, v string) error {
		o.DataFile = v
		return nil
	}},
	{"data_file_raw", "bool (on/off)", "The external data file must stay valid as a raw image", "", false, func(o *offline.CreateOptions, v string) (err error) {
		o.DataFileRaw, err = keyval.Bool("data_file_raw", v)
		return err
	}},
	{"lazy_refcounts", "bool (on/off)", "Postpone refcount updates", "off", false, func(o *offline.CreateOptions, v string) (err error) {
		o.LazyRefcounts, err = keyval.Bool("lazy_refcounts", v)
		return err
	}},
	{"refcount_bits", "num", "Width of a reference count entry in bits", "16", false, setRefcountBits},
	{"nocow", "bool (on/off)", "Turn off copy-on-write (valid only on btrfs)", "", true, nil},
	{"extent_size_hint", "size", "Extent size hint for the image file, 0 to disable (valid only on XFS)", "", true, nil},
}

// rawOptions are in the order in which QEMU prints those of raw.
var rawOptions = []string{"size", "nocow", "preallocation", "extent_size_hint"}

// errNoEncryption is for the options of images that nobody here could open.
var errNoEncryption = errors.New("encrypted images are neither made nor opened by this version; leave out 'encryption' and 'encrypt.*'")

func setPreallocation(o *offline.CreateOptions, v string) (err error) {
	o.Preallocation, err = offline.ParsePreallocation(v)
	return err
}

func setCompression(o *offline.CreateOptions, v string) error {
	kind, known := map[string]format.Compression{"zlib": format.CompressionZlib, "zstd": format.CompressionZstd}[v]
	if !known {
		return fmt.Errorf("Parameter 'compression-type' does not accept value '%s'", v)
	}
	o.Compression = kind
	return nil
}

func setCompat(o *offline.CreateOptions, v string) error {
	version, known := map[string]int{"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}[v]
	if !known {
		return fmt.Errorf("Parameter 'version' does not accept value '%s'", v)
	}
	o.Version = version
	return nil
}

func setRefcountBits(o *offline.CreateOptions, v string) error {
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return errors.New("Parameter 'refcount_bits' expects a number")
	}
	o.RefcountBits = int(min(n, math.MaxInt32))
	if n == 0 {
		o.RefcountBits = -1 // the zero value is the default
	}
	return nil
}

func (t *imageCreate) wantsHelp() bool {
	for _, text := range t.options {
		for part := range strings.SplitSeq(text, ",") {
			if part == "help" || part == "?" {
				return true
			}
		}
	}
	return false
}

// help lists the options of the format.
func (t *imageCreate) help(args []string) error {
	name := t.format
	if name == "" && len(args) > 0 {
		name = formatByName(args[0])
	}
	if name == "" {
		name = "raw"
	}
	fmt.Fprintf(t.c.out, "Supported %s options:\n", name)
	options := slices.Clone(createOptions)
	slices.SortFunc(options, func(a, b createOption) int { return strings.Compare(a.name, b.name) })
	for _, o := range options {
		if name == formatQcow2 || o.raw {
			fmt.Fprintf(t.c.out, "  %-22s - %s\n", o.name+"=<"+o.kind+">", o.help)
		}
	}
	return nil
}

// read reads the options into what is to be made. Values are judged last, when all have been printed.
func (t *imageCreate) read() error {
	if t.format != "qcow2" && t.format != "raw" {
		return fmt.Errorf("Unknown file format '%s'", t.format)
	}
	t.given = map[string]string{}
	for _, text := range t.options {
		set, _, err := keyval.ParseSwitches(text, t.knows)
		switch {
		case err != nil:
			return fmt.Errorf("Invalid options for file format '%s': %w", t.format, err)
		case set.Empty():
			return fmt.Errorf("Invalid option list: '%s'; write NAME=VALUE, or 'help' for a list of names", text)
		}
		for name, value := range set.All() {
			if strings.HasPrefix(name, "encrypt.") && t.format == formatQcow2 {
				return errNoEncryption
			}
			if !t.knows(name) {
				return fmt.Errorf("Invalid parameter '%s'", name)
			}
			t.given[name] = value
		}
	}
	if err := t.readBacking(); err != nil {
		return err
	}
	return t.readEarly()
}

func (t *imageCreate) knows(name string) bool {
	for _, o := range createOptions {
		if o.name == name {
			return t.format == "qcow2" || o.raw
		}
	}
	return false
}

func (t *imageCreate) readBacking() error {
	for _, o := range []struct{ name, value string }{{"backing_file", t.backing}, {"backing_fmt", t.backingFormat}} {
		switch {
		case o.value == "" && o.name == "backing_file" && t.backingGiven:
			return errors.New("Expected backing file name, got empty string")
		case o.value == "":
		case t.format == "raw":
			return errors.New("Backing file not supported for file format 'raw'")
		case t.given[o.name] != "":
			return fmt.Errorf("Parameter '%s' is given twice", o.name)
		default:
			t.given[o.name] = o.value
		}
	}
	return nil
}

// readEarly reads what has the form of a number or a switch.
func (t *imageCreate) readEarly() error {
	for _, o := range createOptions {
		value, given := t.given[o.name]
		if !given || o.kind == "str" {
			continue
		}
		if err := t.set(&o, value); err != nil {
			return err
		}
		if o.kind == "size" {
			n, _ := keyval.Size(o.name, value)
			t.given[o.name] = fmt.Sprint(n)
		}
	}
	return nil
}

// set reads an option of the image, or of its file.
func (t *imageCreate) set(o *createOption, value string) (err error) {
	switch {
	case o.set != nil:
		return o.set(&t.what, value)
	case o.name == "nocow":
		t.attributes.noCOW, err = keyval.Bool(o.name, value)
	default:
		t.attributes.extentBytes, err = keyval.Size(o.name, value)
	}
	return err
}

// finish reads the words, and looks whether all fits together.
func (t *imageCreate) finish() error {
	for _, o := range createOptions {
		if value, given := t.given[o.name]; given && o.kind == "str" {
			if err := o.set(&t.what, value); err != nil {
				return err
			}
		}
	}
	return t.what.Check()
}

// formatting is the line that says what is made.
func (t *imageCreate) formatting() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Formatting '%s', fmt=%s", t.path, t.format)
	options := slices.Clone(createOptions)
	if t.format == "raw" {
		place := func(o createOption) int { return slices.Index(rawOptions, o.name) }
		slices.SortStableFunc(options, func(a, b createOption) int { return place(a) - place(b) })
	}
	for _, o := range options {
		value, given := t.given[o.name]
		switch {
		case given && (t.format == "qcow2" || o.raw):
		case o.name == "size":
			value = fmt.Sprint(t.what.SizeBytes)
		case t.format == "raw" || o.value == "":
			continue
		default:
			value = o.value
		}
		fmt.Fprintf(&b, " %s=%s", o.name, strings.ReplaceAll(value, ",", ",,"))
	}
	return b.String()
}
