package main

import (
	"fmt"
	"strings"

	"nbd-dataplane/internal/keyval"
)

// imagePlace is the file that a name stands for, and its format, "" = it has to be guessed.
type imagePlace struct {
	path, format string
	share        bool // the name asks for no locks
}

// find finds the file that is meant: a path, json:{...}, or with --image-opts a list of options. The tools know what is in the file and need no more of what can
// be said of an image; they refuse what would have them show another disk.
func (f *imageFlags) find(name string) (imagePlace, error) {
	text, isJSON := strings.CutPrefix(name, "json:")
	if !isJSON && !f.options {
		return imagePlace{name, f.format, f.share}, nil
	}
	img := image{display: name}
	var set *keyval.Set
	var err error
	if isJSON {
		set, err = img.parseJSON(text)
	} else {
		set, err = img.parseOptions(name)
	}
	var p imagePlace
	if err == nil {
		p, err = img.place(set, f.format)
	}
	if err != nil {
		return p, couldNot(name, fmt.Errorf("%s", qemuText(err)))
	}
	p.share = p.share || f.share
	return p, nil
}

// place reads what a set of options says of an image.
func (img *image) place(set *keyval.Set, format string) (imagePlace, error) {
	driver := set.TakeOr("driver", "")
	if driver != "" {
		set.Put("driver", driver)
	}
	if err := img.readSet(set, format); err != nil {
		return imagePlace{}, err
	}
	p := imagePlace{path: img.raw.Path, format: "raw", share: img.raw.ForceShare}
	switch {
	case img.nfs != nil:
		p.path = img.nfs.URL()
	case img.isNull || img.nodeKind != "":
		return p, fmt.Errorf("this is no file; the image tools read and write files only")
	case img.raw.Offset != 0 || img.raw.SizeBytes != 0:
		return p, fmt.Errorf("this is a part of a file; leave out 'offset' and 'size', for which the image tools have no use")
	case img.node != nil:
		return img.qcow2Place(p)
	case format == "" && (driver == "file" || driver == "host_device"):
		p.format = driver
	}
	return p, nil
}

// qcow2Place is where a qcow2 image is. It refuses options that have the image be more than what its file says.
func (img *image) qcow2Place(p imagePlace) (imagePlace, error) {
	p.format = formatQcow2
	for _, key := range img.node.Keys() {
		if group, _, _ := strings.Cut(key, "."); group == "backing" || group == "data-file" {
			return p, fmt.Errorf("the image tools take no option '%s'; they go by what the image says", key)
		}
	}
	file := img.node.TakeGroup("file")
	switch driver := file.TakeOr("driver", ""); driver {
	case "file", "host_device":
		return p, nil
	case driverNFS:
		below := image{display: img.display}
		err := below.readNFSKeys(file)
		if err == nil {
			p.path = below.nfs.URL()
		}
		return p, err
	default:
		return p, fmt.Errorf("the file of the image has the driver '%s'; the image tools read and write files only", driver)
	}
}
