package main

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"nbd-dataplane/backends/null"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/internal/imagelock"
	"nbd-dataplane/qmp"
)

// drivers are the block drivers that blockdev-add knows. j is told of what they work around.
func drivers(j *journal) map[string]control.Driver {
	file, image := fileDriver{j.warn}, qcow2Driver{j}
	all := map[string]control.Driver{
		"file":        {Open: file.open, Reopen: reopened(file.options), Fixed: fixedOfFiles},
		"host_device": {Open: file.openDevice, Reopen: reopened(file.options), Fixed: fixedOfFiles},
		"qcow2":       {Open: image.open, Reopen: image.reopen},
		driverNFS:     {Open: nfsDriver{j.warn}.open, Reopen: reopenNFS, Fixed: fixedOfNFS, Live: changeNFS},
		"null-co":     {Open: openNullNode},
		"null-aio":    {Open: openNullNode},
	}
	maps.Copy(all, filterDrivers())
	return all
}

// driverNames are their names, sorted.
func driverNames() []string { return slices.Sorted(maps.Keys(drivers(&journal{}))) }

// fixedOfFiles are the options of files that cannot be changed.
var fixedOfFiles = []string{"filename", "locking"}

// fileDriver opens files and block devices.
type fileDriver struct{ warn func(string) }

// fileNode are the options of the drivers file and host_device.
type fileNode struct {
	Filename    string  `qmp:"filename"`
	AIO         string  `qmp:"aio,optional,enum=threads|native|io_uring"`
	Locking     string  `qmp:"locking,optional,enum=auto|on|off"`
	AIOMaxBatch *int64  `qmp:"aio-max-batch"`
	DropCache   *bool   `qmp:"drop-cache"`
	PRManager   *string `qmp:"pr-manager"`
	CheckCache  *bool   `qmp:"x-check-cache-dropped"`
}

func (d fileDriver) options(o *control.Opening) (raw.Options, error) {
	var n fileNode
	if err := o.Decode(&n); err != nil {
		return raw.Options{}, err
	}
	if n.PRManager != nil {
		return raw.Options{}, qmp.Errorf("No persistent reservation manager with id '%s'", *n.PRManager)
	}
	if n.Filename == "" {
		return raw.Options{}, qmp.Errorf("The '%s' block driver requires a file name", o.Driver)
	}
	if n.AIO == "native" && !o.Cache.Direct {
		return raw.Options{}, qmp.Errorf("aio=native was specified, but it requires cache.direct=on, which was not specified.")
	}
	options := raw.Options{
		Path: n.Filename, ReadOnly: o.ReadOnly, ForceShare: o.ForceShare, Grows: o.HoldsImage(), Warn: d.warn,
		Cache: raw.Cache{Direct: o.Cache.Direct, NoFlush: o.Cache.NoFlush},
	}
	var errs []error
	var err error
	options.AIO, err = raw.ParseAIO(n.AIO)
	errs = append(errs, err)
	if n.Locking != "" {
		options.Locking, err = imagelock.ParseMode(n.Locking)
		errs = append(errs, err)
	}
	if o.Discard != "" {
		options.Discard, err = raw.ParseDiscard(o.Discard)
		errs = append(errs, err)
	}
	if o.DetectZeroes != "" {
		options.DetectZeroes, err = raw.ParseDetectZeroes(o.DetectZeroes)
		errs = append(errs, err)
	}
	return options, errors.Join(errs...)
}

// open opens a file.
func (d fileDriver) open(o *control.Opening) (blockcore.Driver, error) {
	return d.openKind(o, func(path string, mode fs.FileMode) error {
		if mode.IsRegular() || mode.IsDir() { // to open a directory has an error of its own
			return nil
		}
		return qmp.Errorf("'file' driver requires '%s' to be a regular file", path)
	})
}

// openDevice opens a block device.
func (d fileDriver) openDevice(o *control.Opening) (blockcore.Driver, error) {
	return d.openKind(o, func(path string, mode fs.FileMode) error {
		if mode&fs.ModeDevice != 0 || mode.IsDir() {
			return nil
		}
		return qmp.Errorf("'host_device' driver requires '%s' to be either a character or block device", path)
	})
}

func (d fileDriver) openKind(o *control.Opening, check func(path string, mode fs.FileMode) error) (blockcore.Driver, error) {
	options, err := d.options(o)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(options.Path); err == nil {
		if err := check(options.Path, st.Mode()); err != nil {
			return nil, err
		}
	}
	f, err := raw.Open(options)
	if err != nil && o.AutoReadOnly && !options.ReadOnly && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS)) {
		options.ReadOnly = true
		f, err = raw.Open(options)
	}
	if err != nil {
		return nil, couldNotOpen(&options, err)
	}
	return f, nil
}

// nullNode are the options of null-co.
type nullNode struct {
	Size       *int64 `qmp:"size"`
	LatencyNS  *int64 `qmp:"latency-ns"`
	ReadZeroes bool   `qmp:"read-zeroes,optional"`
}

func openNullNode(o *control.Opening) (blockcore.Driver, error) {
	var n nullNode
	if err := o.Decode(&n); err != nil {
		return nil, err
	}
	options := null.Options{ReadZeroes: n.ReadZeroes}
	if n.Size != nil {
		if *n.Size < 0 {
			return nil, qmp.Expects("size", "a non-negative number below 2^64")
		}
		options.SizeBytes = *n.Size
	}
	if n.LatencyNS != nil {
		if *n.LatencyNS < 0 {
			return nil, qmp.Errorf("latency-ns is invalid")
		}
		options.LatencyNS = *n.LatencyNS
	}
	return null.Open(options), nil
}
