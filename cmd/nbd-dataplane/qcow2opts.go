package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/internal/keyval"
)

// What --image-opts takes for driver=qcow2. Most of it is passed on as it is; here is what QEMU says of a command line before it looks at the image.

var (
	qcow2Sizes    = []string{"cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size"}
	qcow2Switches = []string{"lazy-refcounts", "pass-discard-request", "pass-discard-snapshot", "pass-discard-other"}
	// qcow2Others are the rest. What ends in a dot is a group.
	qcow2Others = []string{"overlap-check", "overlap-check.template", "cache-clean-interval", "backing", "backing.", "data-file", "data-file.", "encrypt."}
	fileOptions = []string{
		"driver", "filename", "locking", "aio", "aio-max-batch", "drop-cache", "pr-manager", "x-check-cache-dropped",
		"node-name", "discard", "detect-zeroes", "read-only", "auto-read-only", "force-share", "cache.direct", "cache.no-flush",
	}
)

// readQcow2 reads the options of driver=qcow2, and those of its file.
func (img *image) readQcow2(set, file *keyval.Set) error {
	if file.Empty() {
		return wrong(img.display+": driver=qcow2 needs a file; add file.filename=PATH", `A block device must be specified for "file"`)
	}
	if err := img.readCommon(set); err != nil {
		return err
	}
	if err := checkQcow2(set); err != nil {
		return err
	}
	for key, value := range file.All() {
		set.Put("file."+key, value)
		if key == "filename" {
			img.raw.Path = value
		}
	}
	kind, given := file.Take("driver")
	if !given {
		kind = protocolDriver(img.raw.Path)
		set.Put("file.driver", kind)
	}
	if kind == "file" || kind == "host_device" {
		for _, key := range file.Keys() {
			if !slices.Contains(fileOptions, key) {
				return unknownOption(kind, onlyKey(key))
			}
		}
	}
	findDrivers(set)
	img.node = set
	return checkDrivers(set)
}

// checkQcow2 refuses options that are not there and values that cannot be.
func checkQcow2(set *keyval.Set) error {
	level, given := "", false
	for _, key := range set.Keys() {
		value, _ := set.Take(key)
		set.Put(key, value)
		switch {
		case slices.Contains(qcow2Sizes, key):
			n, err := keyval.Size(key, value)
			if err != nil {
				return &keyval.Error{Parameter: key, Problem: offsetProblem, Hint: offsetHint}
			}
			set.Put(key, strconv.FormatInt(n, 10))
		case slices.Contains(qcow2Switches, key):
			if _, err := keyval.Bool(key, value); err != nil {
				return err
			}
		case key == "cache-clean-interval":
			if _, err := strconv.ParseUint(value, 10, 63); err != nil {
				return &keyval.Error{Parameter: key, Problem: "expects a number"}
			}
		case key == "overlap-check" || key == "overlap-check.template":
			if given && level != value {
				return conflictingLevels(set)
			}
			level, given = value, true
			if _, known := overlapLevels[value]; !known || value == "" {
				return wrongLevel(value)
			}
		case !isQcow2Option(key):
			return unknownOption(formatQcow2, onlyKey(key))
		}
	}
	// One way to say it is enough for who reads it.
	if _, both := set.Take("overlap-check"); both {
		set.Put("overlap-check.template", level)
	}
	return nil
}

func isQcow2Option(key string) bool {
	kind, isKind := strings.CutPrefix(key, "overlap-check.")
	return isKind && slices.Contains(qcow2.OverlapKinds[:], kind) ||
		slices.ContainsFunc(qcow2Others, func(known string) bool {
			return key == known || strings.HasSuffix(known, ".") && strings.HasPrefix(key, known)
		})
}

func onlyKey(key string) *keyval.Set {
	set := &keyval.Set{}
	set.Put(key, "")
	return set
}

func conflictingLevels(set *keyval.Set) error {
	text := fmt.Sprintf("Conflicting values for qcow2 options 'overlap-check' ('%s') and 'overlap-check.template' ('%s')",
		set.TakeOr("overlap-check", ""), set.TakeOr("overlap-check.template", ""))
	return wrong(text+"; leave out one of them", text)
}

// findDrivers finds the drivers of files that are described without one, as QEMU does.
func findDrivers(set *keyval.Set) {
	for _, key := range set.Keys() {
		prefix, isFile := strings.CutSuffix(key, "file.filename") // of file., data-file., backing.file., backing.backing.file. and so on
		if !isFile {
			continue
		}
		name, _ := set.Take(key)
		set.Put(key, name)
		putDefault(set, prefix+"file.driver", protocolDriver(name))
		if prefix != "" && !strings.HasSuffix(prefix, "-") { // data-file has no format
			putDefault(set, prefix+"driver", sniff(name))
		}
	}
}

// checkDrivers refuses drivers that are not there.
func checkDrivers(set *keyval.Set) error {
	for key, value := range set.All() {
		if key != "driver" && !strings.HasSuffix(key, ".driver") || slices.Contains(driverNames(), value) {
			continue
		}
		qemu := fmt.Sprintf("Unknown driver '%s'", value)
		if strings.HasPrefix(key, "backing.") {
			qemu = "Could not open backing file: " + qemu
		}
		return wrong(fmt.Sprintf("%s=%s: there is no such driver; use one of %s", key, value, strings.Join(driverNames(), ", ")), qemu)
	}
	return nil
}

func putDefault(set *keyval.Set, key, value string) {
	if given, found := set.Take(key); found {
		value = given
	}
	set.Put(key, value)
}
