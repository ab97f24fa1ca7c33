package main

import (
	"fmt"
	"strings"

	"nbd-dataplane/internal/keyval"
)

// imagePlace is the file that a name stands for, and its format, "" = it has to be guessed.
type imagePlace struct {
	path, format string
	share        bool         // the name asks for no locks
	window       *imageWindow // nil = all of the file
	// What is to be taken instead of what the image names.
	data      *imagePlace // nil = what it names
	backing   *imagePlace // nil = what it names
	noBacking bool
}

// find finds the file that is meant: a path, json:{...}, or with --image-opts a list of options. The tools know what is in the file and need no more of what can
// be said of an image than what would have them show another disk.
func (f *imageFlags) find(name string) (imagePlace, error) {
	text, isJSON := strings.CutPrefix(name, "json:")
	if !isJSON && !f.options {
		return imagePlace{path: name, format: f.format, share: f.share}, nil
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
	if name, given := set.Take("file"); given && name != "" {
		return imagePlace{}, fmt.Errorf("Cannot find device='%s' nor node-name='%s'", name, name)
	}
	window := takeWindow(set)
	if err := img.readSet(set, format); err != nil {
		return imagePlace{}, err
	}
	p := imagePlace{path: img.raw.Path, format: "raw", share: img.raw.ForceShare}
	switch {
	case img.nfs != nil:
		p.path = img.nfs.URL()
	case img.isNull || img.nodeKind != "":
		return p, fmt.Errorf("this is no file; the image tools read and write files only")
	case img.node != nil && img.raw.Offset != 0:
		return p, fmt.Errorf("this is a part of a disk; the image tools read and write files only")
	case img.node != nil:
		return img.qcow2Place(p)
	case img.raw.SizeBytes%sectorBytes != 0:
		return p, fmt.Errorf("Specified size is not multiple of %d", sectorBytes)
	case window != nil:
		window.offset, window.sizeBytes = img.raw.Offset, img.raw.SizeBytes
		p.window = window
	case format == "" && (driver == "file" || driver == "host_device"):
		p.format = driver
	}
	return p, nil
}

// qcow2Place is where a qcow2 image is, and what it stands on if that is not what it says itself.
func (img *image) qcow2Place(p imagePlace) (imagePlace, error) {
	p.format = formatQcow2
	if err := img.placeOthers(&p); err != nil {
		return p, err
	}
	file := img.node.TakeGroup("file")
	switch driver := file.TakeOr("driver", ""); driver {
	case "file", "host_device":
		return p, nil
	case driverNFS, "raw":
		file.Put("driver", driver)
		below := image{display: img.display}
		where, err := below.place(file, "")
		p.path, p.window = where.path, where.window
		return p, err
	default:
		return p, fmt.Errorf("the file of the image has the driver '%s'; the image tools read and write files only", driver)
	}
}

// placeOthers reads backing and data-file.
func (img *image) placeOthers(p *imagePlace) error {
	for _, o := range []struct {
		key, what string
		to        **imagePlace
	}{{"backing", "Could not open backing file: ", &p.backing}, {"data-file", "", &p.data}} {
		if name, given := img.node.Take(o.key); given && (name != "" || o.key != "backing") {
			return fmt.Errorf("%sCannot find device='%s' nor node-name='%s'", o.what, name, name)
		} else if given {
			p.noBacking = true
		}
		group := img.node.TakeGroup(o.key)
		if group.Empty() {
			continue
		}
		below := image{display: img.display}
		where, err := below.place(group, "")
		if err != nil {
			return fmt.Errorf("%s%s", o.what, qemuText(err))
		}
		*o.to = &where
	}
	return nil
}
