package main

import (
	"context"
	"errors"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
)

// resizedByServer is how far the disk becomes longer by the server's driver, before the rest is done in the file alone; 0 = not at all. The driver reads what
// is below, and so can write the part of a cluster behind the old end: that may have anything, and has to read as zeroes. So it can the zeroes
// that hide a longer disk below from an image without zero clusters.
func (r *resizable) resizedByServer(sizeBytes int64, how offline.Preallocation) int64 {
	if r.im == nil || sizeBytes <= r.sizeBytes() || r.im.MayResize(sizeBytes, how) != nil {
		return 0
	}
	old, cluster := r.sizeBytes(), r.im.Header().Geometry().ClusterBytes()
	whole := (old + cluster - 1) / cluster * cluster
	if hidden := min(r.backing, sizeBytes); hidden > whole && r.im.Header().Version < 3 {
		return min((hidden+cluster-1)/cluster*cluster, sizeBytes)
	}
	if old == whole {
		return 0
	}
	return min(whole, sizeBytes)
}

// growAsServer has the server's driver make the disk longer. The file is closed then, and opened again for the rest.
func (t *imageResize) growAsServer(r *resizable, path string, sizeBytes int64) (*resizable, error) {
	if err := errors.Join(r.file.Close(), t.growByDriver(path, sizeBytes)); err != nil {
		return r, failed(err)
	}
	file, err := t.openFile(path, true)
	if err != nil {
		return r, err
	}
	again, err := t.open(path, file)
	if err != nil {
		return r, errors.Join(err, file.Close())
	}
	return again, nil
}

// growByDriver makes the disk in an image longer as a server does that has no clients. The image is named as it was to us, with all that its options say.
func (t *imageResize) growByDriver(path string, sizeBytes int64) (err error) {
	o := defaultsOf(doorServe)
	o.format, o.imageOpts = formatQcow2, t.options
	img, err := o.imageOf(path)
	if err != nil {
		return err
	}
	loop, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "resize"})
	if err != nil {
		return err
	}
	defer loop.Close()
	graph := blockcore.NewGraphWith(blockcore.GraphOptions{Main: loop})
	plane := newPlane(control.Options{Graph: graph, Main: loop, Quit: func() {}}, &journal{door: doorQSD, err: t.c.err})
	defer func() { err = errors.Join(err, plane.Close()) }()
	n, err := img.openNode(plane, nodeName(0), loop)
	if err != nil {
		return err
	}
	section := blockcore.DrainOptions{Why: "resize", Nodes: []*blockcore.Node{n}}
	err = graph.Change(context.Background(), section, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		return tx.Resize(d, n, sizeBytes)
	})
	if f, is := errors.AsType[*blockcore.NodeFailure](err); is {
		return f.Err
	}
	return err
}
