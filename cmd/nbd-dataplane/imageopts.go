package main

import (
	"errors"
	"fmt"
	"strings"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/internal/keyval"
)

// readImageOpts reads the argument of --image-opts.
func (img *image) readImageOpts(text string) error {
	set, err := keyval.Parse(text, "")
	if err != nil {
		first, _, _ := strings.Cut(text, ",") // QEMU takes it for the name of a node
		return wrong(fmt.Sprintf("%s: %v; write driver=raw,file.filename=PATH", text, err), fmt.Sprintf("Cannot find device='%s' nor node-name='%s'", first, first))
	}
	return img.readSet(set, "")
}

// readJSON reads a json:{...} file name. format is -f's, which comes first.
func (img *image) readJSON(text, format string) error {
	set, err := keysOfJSON(text)
	if errors.Is(err, errNoObject) {
		return wrong(fmt.Sprintf("%s: the JSON is no object; write json:{\"driver\":\"raw\",...}", img.display), "Invalid JSON object given")
	}
	if err != nil {
		return fmt.Errorf("Could not parse the JSON options: %w", err)
	}
	return img.readSet(set, format)
}

// readSet reads the options of a format and of the protocol below it. A protocol driver may stand alone.
func (img *image) readSet(set *keyval.Set, format string) error {
	driver, given := set.Take("driver")
	if format != "" {
		driver, given = format, true
	}
	file := set.TakeGroup("file")
	if !given && file.Empty() {
		return wrong(img.display+": it says neither driver= nor file.filename=; write driver=raw,file.filename=PATH", "Must specify either driver or file")
	}
	switch driver {
	case "file", "host_device":
		return img.readFile(set, driver)
	case "null-co", "null-aio":
		return img.readNull(set, driver)
	case driverNFS:
		return img.readNFSKeys(set)
	case "raw", "":
		if kind := file.TakeOr("driver", ""); kind == formatQcow2 && given {
			return img.readWindow(set, file)
		} else if kind != "" {
			file.Put("driver", kind)
		}
		return img.readRaw(set, file, !given)
	case formatQcow2:
		return img.readQcow2(set, file)
	}
	return checkFormat(img.display, driver)
}

// readRaw reads driver=raw, a window on its file.
func (img *image) readRaw(set, file *keyval.Set, probe bool) error {
	offset, err := set.TakeSize("offset", 0)
	if err != nil {
		return err
	}
	if img.raw.SizeBytes, err = set.TakeSize("size", 0); err != nil {
		return err
	}
	img.raw.Offset += offset
	if err := img.readCommon(set); err != nil {
		return err
	}
	if file.Empty() {
		return wrong(img.display+": driver=raw needs a file; add file.filename=PATH", `A block device must be specified for "file"`)
	}
	if !set.Empty() {
		return unknownOption("raw", set)
	}
	kind := file.TakeOr("driver", "file")
	switch kind {
	case "null-co", "null-aio":
		return img.readNull(file, kind)
	case driverNFS:
		return img.readNFSKeys(file)
	case "file", "host_device":
	default:
		return wrong(fmt.Sprintf("%s: there is no driver '%s'; use file, host_device, nfs or null-co", img.display, kind), fmt.Sprintf("Unknown driver '%s'", kind))
	}
	if err := img.readFile(file, kind); err != nil {
		return err
	}
	if !probe {
		return nil
	}
	img.probe, img.display = true, img.raw.Path
	if format := sniff(img.raw.Path); format != formatQcow2 {
		return checkFormat(img.display, format)
	}
	return img.pathQcow2()
}

// readWindow reads driver=raw on a qcow2 image.
func (img *image) readWindow(set, file *keyval.Set) error {
	offset, err := set.TakeSize("offset", 0)
	if err != nil {
		return err
	}
	img.raw.Offset += offset
	if err := img.readCommon(set); err != nil {
		return err
	}
	if !set.Empty() {
		return unknownOption("raw", set)
	}
	return img.readQcow2(file, file.TakeGroup("file"))
}

// readFile reads driver=file or host_device.
func (img *image) readFile(set *keyval.Set, kind string) error {
	var err error
	if img.raw.Path, err = set.TakeNeeded("filename"); err != nil {
		return wrong(img.display+": file.filename= is missing; add it", fmt.Sprintf("The '%s' block driver requires a file name", kind))
	}
	if err := img.readCommon(set); err != nil {
		return err
	}
	if text, found := set.Take("locking"); found {
		if img.raw.Locking, err = raw.ParseLocking(text); err != nil {
			return err
		}
	}
	if text, found := set.Take("aio"); found {
		if img.raw.AIO, err = raw.ParseAIO(text); err != nil {
			return err
		}
	}
	if !set.Empty() {
		return unknownOption(kind, set)
	}
	return nil
}

// readCommon reads the options that QEMU takes at every level.
func (img *image) readCommon(set *keyval.Set) (err error) {
	set.Take("node-name") // nothing here refers to nodes by name
	for key, to := range map[string]*bool{
		"cache.direct": &img.raw.Cache.Direct, "cache.no-flush": &img.raw.Cache.NoFlush,
		"read-only": &img.raw.ReadOnly, "force-share": &img.raw.ForceShare,
	} {
		if *to, err = set.TakeBool(key, *to); err != nil {
			return err
		}
	}
	if text, found := set.Take("discard"); found {
		if img.raw.Discard, err = raw.ParseDiscard(text); err != nil {
			return err
		}
	}
	if text, found := set.Take("detect-zeroes"); found {
		img.raw.DetectZeroes, err = raw.ParseDetectZeroes(text)
	}
	return err
}

// readNull reads driver=null-co or null-aio.
func (img *image) readNull(set *keyval.Set, kind string) (err error) {
	img.isNull = true
	if err := img.readCommon(set); err != nil {
		return err
	}
	if img.null.SizeBytes, err = set.TakeSize("size", 0); err != nil {
		return err
	}
	if img.null.LatencyNS, err = set.TakeSize("latency-ns", 0); err != nil {
		return err
	}
	if img.null.ReadZeroes, err = set.TakeBool("read-zeroes", false); err != nil {
		return err
	}
	if !set.Empty() {
		return unknownOption(kind, set)
	}
	return nil
}

func unknownOption(driver string, set *keyval.Set) error {
	key := set.Keys()[0]
	qemu := fmt.Sprintf("Block protocol '%s' doesn't support the option '%s'", driver, key)
	if driver == "raw" || driver == formatQcow2 {
		qemu = fmt.Sprintf("Block format '%s' does not support the option '%s'", driver, key)
	}
	return wrong(fmt.Sprintf("the driver %s has no option '%s'; leave it out", driver, key), qemu)
}
