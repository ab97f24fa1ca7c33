package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/internal/imagelock"
	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/qmp"
)

// driverNFS is the driver of files on an NFS server.
const driverNFS = "nfs"

// nfsNode are the options of the driver nfs: QEMU's, and below them our own.
type nfsNode struct {
	Server    nfsServer `qmp:"server"`
	Path      string    `qmp:"path"`
	User      *int64    `qmp:"user"`
	Group     *int64    `qmp:"group"`
	SynCount  *int64    `qmp:"tcp-syn-count"`
	Readahead *int64    `qmp:"readahead-size"`
	PageCache *int64    `qmp:"page-cache-size"`
	Debug     *int64    `qmp:"debug"`

	Connections *int64 `qmp:"connections"`
	Timeout     *int64 `qmp:"timeout"`
	NFSPort     *int64 `qmp:"nfsport"`
	MountPort   *int64 `qmp:"mountport"`
	LockPort    *int64 `qmp:"nlmport"`
	Locking     string `qmp:"locking,optional,enum=auto|on|off"`
}

type nfsServer struct {
	Type string `qmp:"type,enum=inet"`
	Host string `qmp:"host"`
}

// options are those of the driver. ignored are the names of those that say something and change nothing.
func (n *nfsNode) options() (o nfs.Options, ignored []string, err error) {
	o = nfs.Options{Host: n.Server.Host, Path: n.Path, LockNotes: lockNotes()}
	if n.Locking != "" {
		if o.Locking, err = imagelock.ParseMode(n.Locking); err != nil {
			return o, nil, err
		}
	}
	if !strings.HasPrefix(n.Path, "/") {
		return o, nil, wrong(fmt.Sprintf("path=%s: it has to begin with a slash", n.Path), "Invalid URL specified")
	}
	for _, number := range []struct {
		key  string
		from *int64
		most int64
		put  func(v int64)
	}{
		{"user", n.User, 1<<32 - 1, func(v int64) { o.UID = new(uint32); *o.UID = uint32(v) }},
		{"group", n.Group, 1<<32 - 1, func(v int64) { o.GID = new(uint32); *o.GID = uint32(v) }},
		{"tcp-syn-count", n.SynCount, 127, func(v int64) { o.SynCount = int(v) }},
		{"connections", n.Connections, nfs.ConnectionsMax, func(v int64) { o.Connections = int(v) }},
		{"timeout", n.Timeout, 31536000, func(v int64) { o.Timeout = time.Duration(v) * time.Second }},
		{"nfsport", n.NFSPort, 65535, func(v int64) { o.NFSPort = int(v) }},
		{"mountport", n.MountPort, 65535, func(v int64) { o.MountPort = int(v) }},
		{"nlmport", n.LockPort, 65535, func(v int64) { o.LockPort = int(v) }},
		{"readahead-size", n.Readahead, 1<<63 - 1, nil},
		{"page-cache-size", n.PageCache, 1<<63 - 1, nil},
		{"debug", n.Debug, 1<<63 - 1, nil},
	} {
		switch {
		case number.from == nil:
		case *number.from < 0 || *number.from > number.most:
			return o, nil, qmp.Expects(number.key, fmt.Sprintf("a number from 0 to %d", number.most))
		case number.put != nil:
			number.put(*number.from)
		case *number.from > 0:
			ignored = append(ignored, number.key)
		}
	}
	return o, ignored, nil
}

// warnIgnored tells of options that change nothing.
func warnIgnored(warn func(string), keys []string) {
	for _, key := range keys {
		warn(fmt.Sprintf("nfs: %s has no effect: requests of clients go to the server as they come, and there is no cache between", key))
	}
}

// nfsNumbers tells the options of a file that are numbers and were given, by the names of blockdev-add.
func nfsNumbers(o *nfs.Options, put func(key string, v int64)) {
	for key, id := range map[string]*uint32{"user": o.UID, "group": o.GID} {
		if id != nil {
			put(key, int64(*id))
		}
	}
	for key, v := range map[string]int{
		"tcp-syn-count": o.SynCount, "connections": o.Connections, "timeout": int(o.Timeout / time.Second), "nfsport": o.NFSPort, "mountport": o.MountPort,
		"nlmport": o.LockPort,
	} {
		if v > 0 {
			put(key, int64(v))
		}
	}
}

// putNFS writes options down as a command line has them.
func putNFS(set *keyval.Set, prefix string, o *nfs.Options) {
	set.Put(prefix+"server.type", "inet")
	set.Put(prefix+"server.host", o.Host)
	set.Put(prefix+"path", o.Path)
	nfsNumbers(o, func(key string, v int64) { set.Put(prefix+key, strconv.FormatInt(v, 10)) })
	if o.Locking != imagelock.Auto {
		set.Put(prefix+"locking", o.Locking.String())
	}
}

// nfsFields are options as blockdev-add takes them.
func nfsFields(o *nfs.Options) map[string]any {
	fields := map[string]any{"driver": driverNFS, "server": map[string]string{"type": "inet", "host": o.Host}, "path": o.Path}
	nfsNumbers(o, func(key string, v int64) { fields[key] = v })
	if o.Locking != imagelock.Auto {
		fields["locking"] = o.Locking.String()
	}
	return fields
}

// nfsDriver opens files on NFS servers.
type nfsDriver struct{ warn func(string) }

func (d nfsDriver) open(o *control.Opening) (blockcore.Driver, error) {
	var n nfsNode
	if err := o.Decode(&n); err != nil {
		return nil, err
	}
	options, ignored, err := n.options()
	if err != nil {
		return nil, err
	}
	if n.PageCache != nil && *n.PageCache > 0 && o.Cache.Direct {
		return nil, qmp.Errorf("Cannot enable NFS pagecache if cache.direct = on")
	}
	warnIgnored(d.warn, ignored)
	options.ReadOnly, options.NoFlush, options.Warn = o.ReadOnly, o.Cache.NoFlush, d.warn
	options.ForceShare, options.Grows = o.ForceShare, o.HoldsImage()
	options.OnHealth = func(h nfs.Health) { o.TellStorage(storageHealth(h)) }
	f, err := nfs.Open(options)
	if err != nil && o.AutoReadOnly && !options.ReadOnly && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS)) {
		options.ReadOnly = true
		f, err = nfs.Open(options)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// fixedOfNFS are the options that cannot be changed: all but timeout.
var fixedOfNFS = []string{
	"server", "path", "user", "group", "tcp-syn-count", "readahead-size", "page-cache-size", "debug", "connections", "nfsport", "mountport", "nlmport",
	"locking",
}

// reopenNFS reads the options of a node that is there.
func reopenNFS(o *control.Opening) (any, error) {
	var n nfsNode
	if err := o.Decode(&n); err != nil {
		return nil, err
	}
	options, _, err := n.options()
	if err != nil {
		return nil, err
	}
	if f := o.Reopens().Driver().(*nfs.File); f.Features().ReadOnly && !o.ReadOnly && !o.AutoReadOnly {
		return nil, qmp.Errorf("Cannot open a read-only mount as read-write")
	}
	return nfs.Changes{Timeout: options.Timeout, ReadOnly: o.ReadOnly}, nil
}

// changeNFS has a file take over what reopenNFS has read. It needs no drain, which would wait for requests that wait for the server.
func changeNFS(d blockcore.Driver, options any) error {
	d.(*nfs.File).Change(options.(nfs.Changes))
	return nil
}

func storageHealth(h nfs.Health) control.StorageHealth {
	return control.StorageHealth{Node: h.Node, File: h.URL, OK: h.OK, Refuses: h.Refuses, Why: h.Why, Lasted: h.Lasted}
}

// nfsCreation are the options of a file that is to be made on an NFS server.
type nfsCreation struct {
	Location nfsNode `qmp:"location"`
	Size     int64   `qmp:"size"`
}

func readNFSCreation(v qmp.Value) (func(*control.Creation) error, error) {
	var o nfsCreation
	if err := v.Decode(&o); err != nil {
		return nil, err
	}
	options, _, err := o.Location.options()
	if err != nil {
		return nil, err
	}
	return func(c *control.Creation) error { return wordsOfQEMU(o.make(options.URL(), c.FilesInUse())) }, nil
}

// make makes the file, and one that is there as long as is wanted, as for a local file.
func (o *nfsCreation) make(url string, inUse map[string]string) (err error) {
	if o.Size < 0 || o.Size > 1<<62 {
		return fmt.Errorf("Could not resize file: %s", strerror(syscall.EINVAL))
	}
	if err := notInUse(url, inUse); err != nil {
		return err
	}
	file, err := (&imageCreate{}).createFile(patient(url))
	if err != nil {
		return err
	}
	defer file.closing(url, &err)
	if err := file.Truncate(o.Size + (sector-o.Size%sector)%sector); err != nil {
		return fmt.Errorf("Could not resize file: %s", pathText(err))
	}
	return nil
}
