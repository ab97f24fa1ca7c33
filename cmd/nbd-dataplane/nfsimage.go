package main

import (
	"encoding/json"
	"errors"
	"path"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/qmp"
)

// readNFS reads nfs://HOST/EXPORT/FILE?...
func (img *image) readNFS(arg string, o *options) error {
	options, err := nfsURL(arg, func(keys []string) { img.ignored = keys })
	if err != nil {
		return err
	}
	img.probe = o.format == ""
	return img.takeNFS(options, o.format)
}

// nfsURL is nfs.ParseURL with errors in the words of both doors.
func nfsURL(arg string, ignored func(keys []string)) (nfs.Options, error) {
	options, keys, err := nfs.ParseURL(arg)
	if bad, ok := errors.AsType[*nfs.URLError](err); ok {
		return options, wrong(bad.Text, bad.QEMU)
	}
	ignored(keys)
	options.LockNotes = lockNotes()
	return options, err
}

// readNFSKeys reads driver=nfs of --image-opts.
func (img *image) readNFSKeys(set *keyval.Set) error {
	if err := img.readCommon(set); err != nil {
		return err
	}
	v, err := qmp.ParseOptions(set.All())
	if err != nil {
		return err
	}
	var n nfsNode
	if err := v.Decode(&n); err != nil {
		return err
	}
	options, ignored, err := n.options()
	if err != nil {
		return err
	}
	img.ignored = ignored
	return img.takeNFS(options, "raw")
}

// takeNFS takes a file on an NFS server, in a format, or in that which it looks like.
func (img *image) takeNFS(options nfs.Options, format string) error {
	if format == "" {
		format = sniffNFS(options, img.raw.CreateBytes > 0)
	}
	img.nfs = &options
	if format != formatQcow2 {
		if err := checkFormat(img.display, format); err != nil {
			return err
		}
		if img.raw.Offset > 0 { // there is a window on it, which is another node
			img.node, img.nodeKind = &keyval.Set{}, driverNFS
			putNFS(img.node, "", &options)
		}
		return nil
	}
	img.node = &keyval.Set{}
	img.node.Put("file.driver", driverNFS)
	putNFS(img.node, "file.", &options)
	return nil
}

// sniffNFS is sniff for a file on an NFS server. One that is to be made has the format of its name.
func sniffNFS(options nfs.Options, creates bool) string {
	r, err := nfs.NewReader(options)
	if err != nil {
		if creates {
			return formatByName(options.URL())
		}
		return "raw" // opening it will say why
	}
	defer r.Close()
	return sniffIn(r, r.Size())
}

// openNFS opens the file as it is. tell is told how the server is doing.
func (img *image) openNFS(warn func(string), tell func(nfs.Health)) (blockcore.Driver, error) {
	options := *img.nfs
	options.ReadOnly, options.NoFlush, options.Writethrough = img.raw.ReadOnly, img.raw.Cache.NoFlush, img.raw.Cache.Writethrough
	options.ForceShare, options.ShareRW = img.raw.ForceShare, img.raw.ShareRW
	options.Warn, options.OnHealth = warn, tell
	if img.minBlock() != 0 || img.guarded() {
		options.Guard = keepsRaw
	}
	warnIgnored(warn, img.ignored)
	f, err := nfs.Open(options)
	if lock, is := errors.AsType[*imagelock.ConflictError](err); is {
		return nil, openError(img.display, wrong(err.Error(), lock.Message()+"\n"+lock.Hint()))
	}
	if err != nil {
		return nil, openError(img.display, err)
	}
	return f, nil
}

// nfsBeside is the file that an image on NFS calls name.
func nfsBeside(image, name string) (nfs.Options, error) {
	if nfs.IsURL(name) {
		o, err := nfsURL(name, func([]string) {})
		return o, err
	}
	o, err := nfsURL(image, func([]string) {})
	if !path.IsAbs(name) {
		o.Path = path.Join(path.Dir(o.Path), name)
	}
	return o, err
}

// isNFS reports whether a file that an image names is on an NFS server: by its name, or since it lies beside the image.
func isNFS(image, name string) bool {
	_, isURL := protocolOf(name)
	return nfs.IsURL(name) || nfs.IsURL(image) && !path.IsAbs(name) && !isURL
}

// describeNFS returns the options of a file on an NFS server that an image names.
func describeNFS(image, name, format string) (qmp.Value, error) {
	options, err := nfsBeside(image, name)
	if err != nil {
		return qmp.Value{}, err
	}
	if format == "" {
		format = sniffNFS(options, false)
	}
	v := nfsFields(&options)
	if format != "raw" && format != driverNFS && format != "file" {
		v = map[string]any{"driver": format, "file": v}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return qmp.Value{}, err
	}
	return qmp.ParseValue(text)
}
