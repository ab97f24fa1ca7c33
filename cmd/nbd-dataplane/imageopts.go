package main

import (
	"errors"
	"fmt"
	"strings"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/internal/imagelock"
	"nbd-dataplane/internal/keyval"
)

// readImageOpts reads the argument of --image-opts.
func (img *image) readImageOpts(text string) error {
	set, err := img.parseOptions(text)
	if err != nil {
		return err
	}
	return img.readSet(set, "")
}

// parseOptions parses a list of options. One without a value is a switch, as it was with QEMU once; there it has to come behind another.
func (img *image) parseOptions(text string) (*keyval.Set, error) {
	first, _, more := strings.Cut(text, ",")
	if !strings.Contains(first, "=") { // QEMU takes it for the name of a node
		qemu := fmt.Sprintf("Cannot find device='%s' nor node-name='%s'", first, first)
		if more {
			qemu = "Cannot reference an existing block device with additional options or a new filename"
		}
		return nil, wrong(fmt.Sprintf("%s: '%s' has no '='; write driver=raw,file.filename=PATH", text, first), qemu)
	}
	set, switches, err := keyval.ParseSwitches(text, func(string) bool { return false })
	if err != nil {
		return nil, wrong(fmt.Sprintf("%s: %v; write driver=raw,file.filename=PATH", text, err), err.Error())
	}
	if backing, found := set.Take("backing"); found {
		set.Put("backing", backing)
		if backing == "" {
			defer img.deprecate(emptyBacking)
		}
	}
	for _, s := range switches {
		img.deprecate(fmt.Sprintf("short-form boolean option '%s' deprecated\nPlease use %s=%s instead", s.Part, s.Key, s.Value))
	}
	return set, nil
}

// emptyBacking is QEMU's warning of a backing image that is left out in the old way.
const emptyBacking = `Use of "backing": "" is deprecated; use "backing": null instead`

func (img *image) deprecate(text string) { img.deprecated = append(img.deprecated, text) }

// readJSON reads a json:{...} file name. format is -f's, which comes first.
func (img *image) readJSON(text, format string) error {
	set, err := img.parseJSON(text)
	if err != nil {
		return err
	}
	return img.readSet(set, format)
}

func (img *image) parseJSON(text string) (*keyval.Set, error) {
	set, err := keysOfJSON(text)
	if errors.Is(err, errNoObject) {
		return nil, wrong(fmt.Sprintf("%s: the JSON is no object; write json:{\"driver\":\"raw\",...}", img.display), "Invalid JSON object given")
	}
	if err != nil {
		return nil, fmt.Errorf("Could not parse the JSON options: %w", err)
	}
	if saysEmpty(text, "backing") {
		img.deprecate(emptyBacking)
	}
	return set, nil
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
	if isFilter(driver) {
		return img.readFilter(driver, set, file)
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
		if img.raw.Locking, err = imagelock.ParseMode(text); err != nil {
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
	if driver == "raw" || driver == formatQcow2 || isFilter(driver) {
		qemu = fmt.Sprintf("Block format '%s' does not support the option '%s'", driver, key)
	}
	return wrong(fmt.Sprintf("the driver %s has no option '%s'; leave it out", driver, key), qemu)
}
