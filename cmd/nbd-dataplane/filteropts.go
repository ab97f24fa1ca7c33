package main

import (
	"fmt"
	"slices"
	"strings"

	"nbd-dataplane/internal/keyval"
)

// filterKeys are the options of each filter that --image-opts takes, besides the node below. What ends in a dot is a group. A raw window is not among them: it may stand on a
// file that nobody has made a node of.
var filterKeys = map[string][]string{
	"compress": nil, "copy-on-read": {"bottom"}, "throttle": {"throttle-group"}, "inject": {"rules.", "seed"}, "blkdebug": {"inject-error."},
}

// isFilter says that a driver stands on another node, which is described with it.
func isFilter(driver string) bool {
	_, is := filterKeys[driver]
	return is
}

// childOf is what a filter calls the node below it.
func childOf(driver string) string {
	if driver == "blkdebug" {
		return "image"
	}
	return "file"
}

// readFilter reads the options of a filter, and of what it stands on. As with QEMU the format below is not guessed: without a driver it is the file itself.
func (img *image) readFilter(driver string, set, file *keyval.Set) error {
	if err := img.readCommon(set); err != nil {
		return err
	}
	for key, value := range file.All() {
		set.Put("file."+key, value)
	}
	child, there := childOf(driver), false
	for _, key := range set.Keys() {
		known := slices.ContainsFunc(filterKeys[driver], func(k string) bool { return key == k || strings.HasSuffix(k, ".") && strings.HasPrefix(key, k) })
		below := key == child || strings.HasPrefix(key, child+".")
		if there = there || below; !known && !below {
			return unknownOption(driver, onlyKey(key))
		}
	}
	if !there {
		return wrong(fmt.Sprintf("%s: driver=%s needs a node below it; add %s.driver=qcow2,%s.file.filename=PATH", img.display, driver, child, child),
			fmt.Sprintf(`A block device must be specified for "%s"`, child))
	}
	if driver == "throttle" && !slices.Contains(set.Keys(), "throttle-group") {
		return wrong(img.display+": driver=throttle needs a throttle-group; limit the disk by 'ctl throttle' when it is served", "Please specify a throttle group")
	}
	if name, given := set.Take(child + ".filename"); given {
		set.Put(child+".filename", name)
		putDefault(set, child+".driver", protocolDriver(name))
	}
	findDrivers(set)
	img.node, img.nodeKind = set, driver
	return checkDrivers(set)
}
