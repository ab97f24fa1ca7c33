package control

import (
	"context"
	"encoding/json"
	"errors"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// NewImage is an image that is to be made above another one.
type NewImage struct {
	Path, Format string
	SizeBytes    int64
	// Backing is the file below, and BackingFormat how it is to be read.
	Backing, BackingFormat string
	Exclusive              bool // no file is there
	// InUse are the files that nodes have open, by the names of the nodes.
	InUse map[string]string
}

type snapshotSyncArgs struct {
	deviceArgs
	File        string  `qmp:"snapshot-file"`
	OverlayName *string `qmp:"snapshot-node-name"`
	Format      string  `qmp:"format,optional"`
	Mode        string  `qmp:"mode,optional,enum=existing|absolute-paths"`
	Exclusive   bool    `qmp:"x-exclusive,optional"`
}

// blockdevSnapshotSync is blockdev-snapshot with an overlay that is made, or is there, as a file.
func (p *Plane) blockdevSnapshotSync(ctx context.Context, _ *qmp.Call, a *snapshotSyncArgs) (any, error) {
	return nil, p.transact(ctx, []action{&snapshotSyncAction{args: *a}})
}

// snapshotSyncAction makes and opens the overlay while clients go on; the rest is that of a snapshotAction.
type snapshotSyncAction struct {
	snapshotAction
	args snapshotSyncArgs
	undo func() error // of the file
}

func (s *snapshotSyncAction) drained(ctx context.Context, p *Plane) (_ []*blockcore.Node, err error) {
	a := &s.args
	if s.node, err = a.find(p); err != nil {
		return nil, err
	}
	if err := busy(s.node); err != nil {
		return nil, err
	}
	if a.Format == "" {
		a.Format = "qcow2"
	}
	switch {
	case p.options.CreateImage == nil:
		return nil, qmp.Errorf("overlays cannot be named by their files here")
	case a.OverlayName == nil:
		return nil, qmp.Errorf("New overlay node-name missing")
	case p.graph.Node(*a.OverlayName) != nil:
		return nil, qmp.Errorf("New overlay node-name already in use")
	case a.Mode == "existing" && !p.hasDriver(a.Format):
		return nil, qmp.Errorf("Unknown driver '%s'", a.Format)
	case a.Mode != "existing":
		if err := s.make(p); err != nil {
			return nil, err
		}
	}
	if s.above, err = s.open(ctx, p); err != nil {
		return nil, err
	}
	return []*blockcore.Node{s.node, s.above}, nil
}

// filesInUse are the files that nodes have open.
func (p *Plane) filesInUse() map[string]string {
	files := map[string]string{}
	for _, n := range p.graph.Nodes() {
		if f, ok := n.Driver().(filenamer); ok {
			files[n.Name()] = f.Path()
		}
	}
	return files
}

// formatOf is the format that a file below an image is said to have: what has none is raw.
func (p *Plane) formatOf(n *blockcore.Node) string {
	switch driver, _ := p.describe(n); driver {
	case "file", "host_device", "nfs":
		return "raw"
	default:
		return driver
	}
}

func (p *Plane) hasDriver(name string) bool {
	_, known := p.options.Drivers[name]
	return known
}

// make makes the file.
func (s *snapshotSyncAction) make(p *Plane) (err error) {
	below := keeperBelow(s.node).node
	s.undo, err = p.options.CreateImage(NewImage{
		Path: s.args.File, Format: s.args.Format, SizeBytes: s.node.Size(), Backing: p.wholeFileOf(below), BackingFormat: p.formatOf(below), Exclusive: s.args.Exclusive,
		InUse: p.filesInUse(),
	})
	return err
}

// open opens the overlay as the disk is open.
func (s *snapshotSyncAction) open(ctx context.Context, p *Plane) (*blockcore.Node, error) {
	_, o := p.describe(keeperBelow(s.node).node)
	file, err := p.options.DescribeFile(s.args.File)
	if err != nil {
		return nil, err
	}
	options := map[string]any{
		"driver": s.args.Format, "node-name": *s.args.OverlayName, "read-only": o.ReadOnly,
		"cache": map[string]bool{"direct": o.Cache.Direct, "no-flush": o.Cache.NoFlush},
		"file":  file.Raw(),
	}
	if s.args.Format != "raw" {
		options["backing"] = nil
	}
	if o.Discard != "" {
		options["discard"] = o.Discard
	}
	if o.DetectZeroes != "" {
		options["detect-zeroes"] = o.DetectZeroes
	}
	text, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	v, err := qmp.ParseValue(text)
	if err != nil {
		return nil, err
	}
	return p.AddNode(ctx, v, nil)
}

func (s *snapshotSyncAction) change(p *Plane, tx *blockcore.Tx, d *blockcore.Drained) error {
	if s.args.Mode != "existing" && s.node.Size() != s.above.Size() {
		return qmp.Errorf("Node '%s' has been resized meanwhile", s.node.Name())
	}
	return s.snapshotAction.change(p, tx, d)
}

// abort closes the overlay and takes its file away.
func (s *snapshotSyncAction) abort(p *Plane) error {
	var errs []error
	if n := s.above; n != nil {
		errs = append(errs, p.graph.Update(context.Background(), "close "+n.Name(), func(tx *blockcore.Tx) error { return tx.RemoveNode(n) }))
		p.forget()
	}
	if s.undo != nil {
		errs = append(errs, s.undo())
	}
	return errors.Join(errs...)
}
