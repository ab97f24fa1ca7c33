package qcow2

import (
	"fmt"

	"nbd-dataplane/blockcore"
)

// Close writes what is not on disk yet, and gives everything back. An image that has not come into the graph, or not stayed there, has lost its file, and has
// written nothing.
func (i *Image) Close(t *blockcore.Task) error {
	i.cleaner.stop()
	if i.readOnly && i.node != nil && i.lacksBitmap() {
		i.warn(fmt.Sprintf("Lost persistent bitmaps during inactivation of node '%s': No write access", i.node.Name()))
	}
	var err error
	if i.file.Load() != nil {
		if err = i.conclude(t); err == nil {
			i.trim(t)
		}
	}
	i.l2.dropAll(t)
	i.refs.blocks.dropAll(t)
	return err
}

// conclude is settle when nothing may be written for now: the bitmaps are stored too. Where that fails they are lost, and the image is as good as before.
func (i *Image) conclude(t *blockcore.Task) error {
	if i.readOnly || i.broken {
		return nil
	}
	if i.modest {
		i.resettle(t)
	}
	lazy := i.lazy
	i.lazy = false
	err := i.storeBitmaps(t)
	i.lazy = lazy
	if err != nil {
		i.warn("qcow2: " + err.Error())
	}
	return i.settle(t)
}

// settle makes the image on disk complete: nothing is left to be done, and it is not dirty, unless entries are wrong. Nothing is in flight.
func (i *Image) settle(t *blockcore.Task) error {
	if i.readOnly || i.broken {
		return nil
	}
	lazy := i.lazy
	i.lazy = false
	defer func() { i.lazy = lazy }()
	// What a commit frees is counted by the next one.
	for !i.clean() || !i.grace.empty() {
		if err := i.commit(t); err != nil {
			return err
		}
	}
	return i.cleanImage(t)
}

// trim takes back what the file was made longer in advance. If that cannot be done now nothing is lost but some zeroes.
func (i *Image) trim(t *blockcore.Task) {
	if i.readOnly || i.broken || i.file.Load() == nil {
		return
	}
	_ = i.trimTo(t, int64(i.g.Cluster(i.refs.blank)))
}

func (i *Image) trimTo(t *blockcore.Task, end int64) error {
	e := i.file.Load()
	if end >= e.Node().Size() {
		return nil
	}
	return e.Resize(t, blockcore.Range{Length: end}.Widen(e.Node().Limits().Align).Length)
}
