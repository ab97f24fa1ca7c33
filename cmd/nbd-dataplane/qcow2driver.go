package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/backends/qcow2/repair"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/qmp"
)

// qcow2Driver opens qcow2 images, with the files that they name.
type qcow2Driver struct{ journal *journal }

// qcow2Node are the options of the driver qcow2.
type qcow2Node struct {
	File                qmp.Value  `qmp:"file"`
	Backing             *qmp.Value `qmp:"backing"`
	DataFile            *qmp.Value `qmp:"data-file"`
	LazyRefcounts       *bool      `qmp:"lazy-refcounts"`
	PassDiscardRequest  *bool      `qmp:"pass-discard-request"`
	PassDiscardSnapshot *bool      `qmp:"pass-discard-snapshot"`
	PassDiscardOther    *bool      `qmp:"pass-discard-other"`
	OverlapCheck        *qmp.Value `qmp:"overlap-check"`
	CacheSize           *int64     `qmp:"cache-size"`
	L2CacheSize         *int64     `qmp:"l2-cache-size"`
	L2CacheEntrySize    *int64     `qmp:"l2-cache-entry-size"`
	RefcountCacheSize   *int64     `qmp:"refcount-cache-size"`
	CacheCleanInterval  *int64     `qmp:"cache-clean-interval"`
	Encrypt             *qmp.Value `qmp:"encrypt"`
}

// overlapFlags is the long form of overlap-check.
type overlapFlags struct {
	Template        string `qmp:"template,optional,enum=none|constant|cached|all"`
	MainHeader      *bool  `qmp:"main-header"`
	ActiveL1        *bool  `qmp:"active-l1"`
	ActiveL2        *bool  `qmp:"active-l2"`
	RefcountTable   *bool  `qmp:"refcount-table"`
	RefcountBlock   *bool  `qmp:"refcount-block"`
	SnapshotTable   *bool  `qmp:"snapshot-table"`
	InactiveL1      *bool  `qmp:"inactive-l1"`
	InactiveL2      *bool  `qmp:"inactive-l2"`
	BitmapDirectory *bool  `qmp:"bitmap-directory"`
}

var overlapLevels = map[string]qcow2.OverlapLevel{
	"": qcow2.OverlapCached, "none": qcow2.OverlapNone, "constant": qcow2.OverlapConstant, "cached": qcow2.OverlapCached, "all": qcow2.OverlapAll,
}

func readOverlap(v *qmp.Value) (o qcow2.OverlapCheck, err error) {
	if v == nil {
		return o, nil
	}
	var flags overlapFlags
	if v.Kind() == qmp.String {
		var name string
		if err := v.Decode(&name); err != nil {
			return o, err
		}
		level, known := overlapLevels[name]
		if !known || name == "" {
			return o, qmp.NotAccepted("overlap-check", name)
		}
		return qcow2.OverlapCheck{Level: level}, nil
	}
	if err := v.Decode(&flags); err != nil {
		return o, err
	}
	o.Level = overlapLevels[flags.Template]
	for name, flag := range map[string]*bool{
		"main-header": flags.MainHeader, "active-l1": flags.ActiveL1, "active-l2": flags.ActiveL2, "refcount-table": flags.RefcountTable,
		"refcount-block": flags.RefcountBlock, "snapshot-table": flags.SnapshotTable, "inactive-l1": flags.InactiveL1,
		"inactive-l2": flags.InactiveL2, "bitmap-directory": flags.BitmapDirectory,
	} {
		switch {
		case flag == nil:
		case *flag:
			o.On = append(o.On, name)
		default:
			o.Off = append(o.Off, name)
		}
	}
	return o, nil
}

func wrongLevel(name string) error {
	return qmp.Errorf("Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, cached, all", name)
}

// options are those of the image itself.
func (d qcow2Driver) options(o *control.Opening, n *qcow2Node) (options qcow2.Options, err error) {
	options = qcow2.Options{
		ReadOnly: o.ReadOnly, Unmap: o.Discard == "unmap" || o.Discard == "on", LazyRefcounts: n.LazyRefcounts,
		PassDiscardRequest: n.PassDiscardRequest, PassDiscardSnapshot: n.PassDiscardSnapshot, PassDiscardOther: n.PassDiscardOther,
		Caches:             qcow2.CacheSizes{Cache: n.CacheSize, L2: n.L2CacheSize, L2Entry: n.L2CacheEntrySize, Refcount: n.RefcountCacheSize},
		CacheCleanInterval: n.CacheCleanInterval,
		OnCorrupted: func(c qcow2.Corruption) {
			o.Corrupted(control.Corruption{Node: c.Node, Text: c.Text, Offset: c.Offset, SizeBytes: c.SizeBytes, Fatal: c.Fatal})
		},
	}
	switch o.DetectZeroes {
	case "on":
		options.DetectZeroes = qcow2.DetectOn
	case "unmap":
		options.DetectZeroes = qcow2.DetectUnmap
	}
	options.Overlap, err = readOverlap(n.OverlapCheck)
	return options, control.Malformed(err)
}

func (d qcow2Driver) open(o *control.Opening) (blockcore.Driver, error) {
	var n qcow2Node
	if err := o.Decode(&n); err != nil {
		return nil, err
	}
	options, err := d.options(o, &n)
	if err != nil {
		return nil, err
	}
	o.OpenImage()
	file, err := o.Node(blockcore.RoleFile, n.File)
	if err != nil {
		return nil, err
	}
	path := o.Filename(file)
	options.Repair, options.Warn = d.repair(path), d.journal.aboutLater(path)
	var image *qcow2.Image
	err = o.Examine(file, func(t *blockcore.Task, e *blockcore.Edge) (err error) {
		image, err = qcow2.Open(t, e, options)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = checkEncryption(n.Encrypt)
	if err == nil {
		err = d.openOthers(o, &n, file, image)
	}
	if err != nil {
		return nil, errors.Join(err, file.Context().Do(image.Close))
	}
	return image, nil
}

// checkEncryption refuses what is said of the encryption of an image that is open, and has none.
func checkEncryption(said *qmp.Value) error {
	if said == nil {
		return nil
	}
	var format string
	if v := said.Member("format"); v.Kind() != qmp.String || v.Decode(&format) != nil {
		return nil
	}
	return qmp.Errorf("No encryption in image header, but options specified format '%s'", format)
}

// repair is for an image that was not closed.
func (d qcow2Driver) repair(path string) qcow2.RepairFunc {
	return repair.Func(repair.Listener{
		Found:    d.journal.about(path),
		Repaired: func(errors, leaks int64) { d.journal.repaired(path, errors, leaks) },
	})
}

// openOthers opens what the image refers to, or what the options say instead.
func (d qcow2Driver) openOthers(o *control.Opening, n *qcow2Node, file *blockcore.Node, image *qcow2.Image) error {
	h := image.Header()
	switch {
	case n.DataFile != nil:
		if _, err := o.Child(blockcore.RoleData, *n.DataFile); err != nil {
			return err
		}
		if !image.NeedsDataFile() {
			return qmp.Errorf("'data-file' can only be set for images with an external data file")
		}
	case image.NeedsDataFile():
		if h.DataFile() == "" {
			return qmp.Errorf("'data-file' is required for this image")
		}
		if err := d.openNamed(o, blockcore.RoleData, file, h.DataFile(), "file"); err != nil {
			return err
		}
	}
	switch {
	case n.Backing != nil && isNothing(*n.Backing):
	case n.Backing != nil:
		if _, err := o.Child(blockcore.RoleBacking, *n.Backing); err != nil {
			return fmt.Errorf("Could not open backing file: %w", err)
		}
	case h.Backing != "":
		if err := d.openNamed(o, blockcore.RoleBacking, file, h.Backing, h.BackingFormat()); err != nil {
			return fmt.Errorf("Could not open backing file: %w", err)
		}
	}
	return nil
}

// openNamed opens a file that an image names. A name without a directory is one beside the image.
func (d qcow2Driver) openNamed(o *control.Opening, role blockcore.Role, file *blockcore.Node, name, format string) error {
	v, err := d.describe(o.Filename(file), name, format)
	if err != nil {
		return err
	}
	return o.NamedChild(role, v)
}

// describe returns the options for a file that an image names.
func (d qcow2Driver) describe(image, name, format string) (qmp.Value, error) {
	if text, is := strings.CutPrefix(name, "json:"); is {
		set, err := keysOfJSON(text)
		if err != nil {
			return qmp.Value{}, fmt.Errorf("Could not parse the JSON options: %w", err)
		}
		return qmp.ParseOptions(set.All())
	}
	if isNFS(image, name) {
		return describeNFS(image, name, format)
	}
	path, isFile := strings.CutPrefix(name, "file:")
	if protocol, isURL := protocolOf(path); isURL && !isFile {
		return qmp.Value{}, qmp.Errorf("Unknown protocol '%s'", protocol)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(image), path)
	}
	protocol := map[string]any{"driver": protocolDriver(path), "filename": path}
	if format == "" {
		format = sniff(path)
	}
	options := protocol
	if format != "file" && format != "host_device" {
		options = map[string]any{"driver": format, "file": protocol}
	}
	text, err := json.Marshal(options)
	if err != nil {
		return qmp.Value{}, err
	}
	return qmp.ParseValue(text)
}

// describeFile returns the options for a file, whatever is in it.
func describeFile(name string) (qmp.Value, error) { return qcow2Driver{}.describe("", name, "file") }

// reopen reads the options again, of an image that is there.
func (d qcow2Driver) reopen(o *control.Opening) (any, error) {
	var n qcow2Node
	if err := o.Decode(&n); err != nil {
		return nil, err
	}
	options, err := d.options(o, &n)
	if err != nil {
		return nil, err
	}
	o.OpenImage()
	for _, child := range []struct {
		role  blockcore.Role
		value *qmp.Value
	}{{blockcore.RoleFile, &n.File}, {blockcore.RoleData, n.DataFile}, {blockcore.RoleBacking, n.Backing}} {
		if child.value == nil || isNothing(*child.value) {
			continue
		}
		if _, err := o.Node(child.role, *child.value); err != nil {
			return nil, err
		}
	}
	return options, nil
}

// isNothing is null, which a command line writes as nothing.
func isNothing(v qmp.Value) bool {
	var text string
	return v.Kind() == qmp.Null || v.Kind() == qmp.String && v.Decode(&text) == nil && text == ""
}
