package main

import (
	"errors"
	"fmt"
	"strings"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/keyval"
)

// snapshotNamed is the argument of -l.
type snapshotNamed struct {
	text  string
	parts *qcow2.SnapshotName // of snapshot.id=ID,snapshot.name=NAME; nil = text is an id or a name
}

// snapshotPrefix is how an argument with parts begins.
const snapshotPrefix = "snapshot."

func setSnapshot(o *options, _ string) error { o.overlay = true; return nil }

// setLoadSnapshot makes the server read-only. As in QEMU an argument with parts counts more than one without.
func setLoadSnapshot(o *options, v string) error {
	o.readOnly = true
	if !strings.HasPrefix(v, snapshotPrefix) {
		if o.showSnapshot == nil || o.showSnapshot.parts == nil {
			o.showSnapshot = &snapshotNamed{text: v}
		}
		return nil
	}
	bad := func(key string) error {
		return wrong(fmt.Sprintf("-l/--load-snapshot %s: use an id, a name, or snapshot.id=ID,snapshot.name=NAME", v),
			fmt.Sprintf("Invalid parameter '%s'\n%s: Failed in parsing snapshot param `%s'", key, qemuName, v))
	}
	set, err := keyval.Parse(v, "")
	if err != nil {
		return bad(v)
	}
	parts := &qcow2.SnapshotName{}
	if id, given := set.Take(snapshotPrefix + "id"); given {
		parts.ID = &id
	}
	if name, given := set.Take(snapshotPrefix + "name"); given {
		parts.Name = &name
	}
	if !set.Empty() {
		return bad(set.Keys()[0])
	}
	o.showSnapshot = &snapshotNamed{text: v, parts: parts}
	return nil
}

// load has the image show the snapshot. Without parts an id counts more than a name.
func (s *snapshotNamed) load(t *blockcore.Task, i *qcow2.Image) error {
	if s.parts != nil {
		return i.LoadSnapshot(t, *s.parts)
	}
	err := i.LoadSnapshot(t, qcow2.SnapshotName{ID: &s.text})
	if errors.Is(err, qcow2.ErrNoSnapshot) {
		err = i.LoadSnapshot(t, qcow2.SnapshotName{Name: &s.text})
	}
	return err
}

// loadSnapshot has the node of an image show the snapshot of -l.
func (s *session) loadSnapshot(img *image, n *blockcore.Node) error {
	named := s.o.showSnapshot
	if named == nil {
		return nil
	}
	top := n
	for top != nil && s.o.door == doorServe && img.node != nil && imageOf(top) == nil {
		top = below(top) // of the window of --offset, with which QEMU finds no snapshots
	}
	i := imageOf(top)
	if i == nil {
		return wrong(fmt.Sprintf("%s: it has no snapshots, which are in qcow2 images; leave out --load-snapshot", img.display),
			fmt.Sprintf("Failed to load snapshot: Block format '%s' used by device '' does not support temporarily loading internal snapshots", img.formatName()))
	}
	err := n.Context().Do(func(t *blockcore.Task) error { return named.load(t, i) })
	if err == nil {
		return nil
	}
	own := fmt.Sprintf("%s: load snapshot: %v", img.display, err)
	if known, ok := errors.AsType[*format.Error](err); ok && known == qcow2.ErrNoSnapshot {
		own = fmt.Sprintf("%s: there is no snapshot '%s'; 'nbd-dataplane image snapshot -l %s' lists them", img.display, named.text, img.display)
	}
	return wrong(own, "Failed to load snapshot: "+err.Error())
}

// imageOf is the qcow2 image that a node is, or nil.
func imageOf(n *blockcore.Node) *qcow2.Image {
	if n == nil {
		return nil
	}
	i, _ := n.Driver().(*qcow2.Image)
	return i
}

// formatName is what QEMU calls the format that is on top.
func (img *image) formatName() string {
	if img.isNull {
		return "null-co"
	}
	return "raw"
}
