package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/qmp"
)

// formatQcow2 is an image that the control plane opens, since it is made of several nodes.
const formatQcow2 = "qcow2"

// pathQcow2 is readQcow2 for a path.
func (img *image) pathQcow2() error {
	img.node = &keyval.Set{}
	img.node.Put("file.driver", protocolDriver(img.raw.Path))
	img.node.Put("file.filename", img.raw.Path)
	if name := aioNames[img.raw.AIO]; name != "" {
		img.node.Put("file.aio", name)
	}
	return nil
}

var aioNames = map[raw.AIO]string{raw.AIOURing: "io_uring", raw.AIONative: "native", raw.AIOThreads: "threads"}

// nodeOptions are the options of the node for blockdev-add.
func (img *image) nodeOptions(name string) (qmp.Value, error) {
	prefix := ""
	set := &keyval.Set{}
	if img.raw.Offset > 0 {
		prefix = "file."
		set.Put("driver", "raw")
		set.Put("offset", strconv.FormatInt(img.raw.Offset, 10))
	}
	set.Put("node-name", name)
	set.Put(prefix+"driver", cmp.Or(img.nodeKind, formatQcow2))
	for key, value := range img.node.All() {
		set.Put(prefix+key, value)
	}
	for key, on := range map[string]bool{
		"read-only": img.raw.ReadOnly, "force-share": img.raw.ForceShare,
		"cache.direct": img.raw.Cache.Direct, "cache.no-flush": img.raw.Cache.NoFlush,
	} {
		if on {
			set.Put(key, "on")
		}
	}
	if img.raw.Discard == raw.DiscardUnmap {
		set.Put("discard", "unmap")
	}
	switch img.raw.DetectZeroes { // of the image: a raw window above it has none
	case raw.DetectOn:
		set.Put(prefix+"detect-zeroes", "on")
	case raw.DetectUnmap:
		set.Put(prefix+"detect-zeroes", "unmap")
	}
	return qmp.ParseOptions(set.All())
}

// openNode opens an image that is made of several nodes, on a loop, and puts them into the graph.
func (img *image) openNode(p *control.Plane, name string, loop *blockcore.AioContext) (*blockcore.Node, error) {
	if img.raw.AIO == raw.AIONative && !img.raw.Cache.Direct {
		return nil, openError(img.display, errNativeNeedsDirect)
	}
	v, err := img.nodeOptions(name)
	if err != nil {
		return nil, openError(img.display, err)
	}
	n, err := p.AddNode(context.Background(), v, loop)
	if err != nil {
		return nil, openError(img.display, imageError(err))
	}
	for top := n; img.raw.Cache.Writethrough && top != nil; top = below(top) {
		if image, ok := top.Driver().(*qcow2.Image); ok {
			err = loop.Do(func(*blockcore.Task) error { image.WriteThrough(); return nil })
			break
		}
	}
	return n, err
}

// imageError is an error about an image, at our own door with the remedy that there is.
func imageError(err error) error {
	text := qmp.ErrorOf(err).Desc
	if usage, is := errors.AsType[*usageError](err); is && usage.hint != "" {
		return wrong(text+". "+usage.hint, text+"\n"+usage.hint)
	}
	known, ok := errors.AsType[*format.Error](err)
	if !ok || known.Hint == "" {
		return errors.New(text)
	}
	return wrong(text+". "+known.Hint, text)
}

// below is the file of a node.
func below(n *blockcore.Node) *blockcore.Node {
	for _, e := range n.Children() {
		if e.Role() == blockcore.RoleFile {
			return e.Node()
		}
	}
	return nil
}

// errNativeNeedsDirect is for --aio=native without --cache=none.
var errNativeNeedsDirect = wrong("--aio=native needs O_DIRECT; add --cache=none or leave it out",
	"aio=native was specified, but it requires cache.direct=on, which was not specified.")

// nodeName is what the node of the n-th image is called.
func nodeName(n int) string { return fmt.Sprintf("disk%d", n) }
