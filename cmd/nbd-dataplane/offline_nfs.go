package main

import (
	"errors"
	"fmt"
	"io/fs"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/backends/qcow2/repair"
	"nbd-dataplane/blockcore"
)

// nfsFile is a file on an NFS server for one goroutine: the driver that serves such files, on a loop of its own.
type nfsFile struct {
	*offline.Ahead
	options nfs.Options
	driver  *nfs.File
	loop    *blockcore.AioContext
	graph   *blockcore.Graph
	root    *blockcore.Root
}

// openNFSFile opens the file of a URL. warn is told what is left out, and when the server does not answer; it may be nil.
func openNFSFile(url string, write, share bool, warn func(string)) (storage, error) {
	options, err := nfsFileOptions(url, warn)
	if err != nil {
		return nil, err
	}
	options.ReadOnly, options.Grows, options.ForceShare = !write, true, share && !write
	f := &nfsFile{options: options, graph: blockcore.NewGraph()}
	if f.loop, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: "image"}); err != nil {
		return nil, err
	}
	if err := f.open(); err != nil {
		f.loop.Close()
		return nil, err
	}
	return f, nil
}

func nfsFileOptions(url string, warn func(string)) (nfs.Options, error) {
	if warn == nil {
		warn = func(string) {}
	}
	options, err := nfsURL(url, func(keys []string) { warnIgnored(warn, keys) })
	options.Warn, options.OnHealth = warn, func(h nfs.Health) { warn(h.String()) }
	return options, err
}

// newNFSFile is newStorage for the file of a URL.
func newNFSFile(url string, exclusive bool, warn func(string)) (s storage, made bool, err error) {
	options, err := nfsFileOptions(url, nil)
	if err != nil {
		return nil, false, err
	}
	made, err = nfs.Create(options, 0)
	switch {
	case err != nil:
		return nil, false, err
	case exclusive && !made:
		return nil, false, fmt.Errorf("%s: %w", url, fs.ErrExist)
	}
	s, err = openNFSFile(url, true, false, warn)
	if err != nil && made {
		err = errors.Join(err, nfs.Remove(options))
	}
	return s, made, err
}

// open opens the file and puts it into a graph.
func (f *nfsFile) open() (err error) {
	if f.driver, err = nfs.Open(f.options); err != nil {
		return err
	}
	node, err := f.graph.AddNode(blockcore.NodeOptions{Name: "image", Context: f.loop, Driver: f.driver})
	if err != nil {
		return errors.Join(err, f.loop.Do(f.driver.Close))
	}
	options := blockcore.RootOptions{Name: "image", Writable: !f.options.ReadOnly}
	if options.Writable {
		options.Permissions = blockcore.PermWrite | blockcore.PermResize
	}
	if f.root, err = f.graph.NewRoot(node, options); err != nil {
		return errors.Join(err, f.graph.RemoveNodes())
	}
	f.Ahead = offline.NewAhead(repair.NewFile(f.root.Edge(), func(fn func(t *blockcore.Task) error) error { return begun(f.root, fn) }))
	return nil
}

// Close brings what was written to stable storage and closes the file.
func (f *nfsFile) Close() error {
	f.Wait()
	f.root.Close()
	err := f.graph.RemoveNodes()
	f.loop.Close()
	return err
}

// hold does nothing: opening the file has taken the locks.
func (f *nfsFile) hold(bool, bool) error { return nil }

func (f *nfsFile) usedBytes() int64 { return f.driver.UsedBytes() }

// holes tells of none: NFS version 3 does not know.
func (f *nfsFile) holes(from, to int64, visit func(at, length int64, hole bool) error) error {
	if from >= to {
		return nil
	}
	return visit(from, to-from, false)
}

func (f *nfsFile) discard() { _ = nfs.Remove(f.options) }
