package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/backends/null"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/qmp"
)

// image is one thing to serve: a file, or a null disk, and how to use it.
type image struct {
	display string // as the user named it
	probe   bool   // nobody said what format it has
	isNull  bool
	raw     raw.Options
	null    null.Options
	nfs     *nfs.Options // of a file on an NFS server; nil = it is none
	ignored []string     // options of that file that change nothing
	// deprecated are warnings of how it was said, in QEMU's words.
	deprecated []string
	node       *keyval.Set // of a format that the control plane opens: its options; nil = it is raw, or null
	// nodeKind is the driver of node; "" = qcow2.
	nodeKind string
}

// imageOf reads one FILE of the command line: a path, null-co://, json:{...}, or with --image-opts a list of options.
func (o *options) imageOf(arg string) (image, error) {
	img := image{display: arg, raw: o.rawOptions()}
	var err error
	switch {
	case o.imageOpts:
		err = img.readImageOpts(arg)
	case strings.HasPrefix(arg, "json:"):
		err = img.readJSON(strings.TrimPrefix(arg, "json:"), o.format)
	case null.IsURL(arg):
		img.isNull, img.probe = true, o.format == ""
		if img.null, err = null.ParseURL(arg); err == nil && o.format != "" {
			err = checkFormat(arg, o.format)
		}
	case nfs.IsURL(arg):
		err = img.readNFS(arg, o)
	default:
		err = img.readPath(arg, o)
	}
	if err != nil {
		return img, openError(img.display, err)
	}
	return img, nil
}

// rawOptions are what the command line says of any image.
func (o *options) rawOptions() raw.Options {
	return raw.Options{
		ReadOnly: o.readOnly, Cache: o.cache, AIO: o.aio, Discard: o.discard, DetectZeroes: o.detectZeroes, Map: o.mapping,
		Offset: int64(o.offset), CreateBytes: o.createBytes,
		// qemu-nbd lets others write the image at the same time; we do not, unless we stand in for it.
		ShareRW: o.door == doorQEMU,
	}
}

func (img *image) readPath(arg string, o *options) error {
	path, hasPrefix := strings.CutPrefix(arg, "file:")
	if protocol, isURL := protocolOf(path); isURL && !hasPrefix {
		return wrong(fmt.Sprintf("%s: there is no protocol '%s'; name a file, a block device, nfs:// or null-co:// (a file with ':' in its name: ./%s)", arg, protocol, arg),
			fmt.Sprintf("Unknown protocol '%s'", protocol))
	}
	img.raw.Path = path
	img.probe = o.format == ""
	format := o.format
	if img.probe {
		if format = sniff(path); img.creates() {
			format = formatByName(path)
		}
	}
	if format == formatQcow2 {
		return img.pathQcow2()
	}
	return checkFormat(arg, format)
}

// protocolOf returns what stands before a colon that comes before any slash, as QEMU has it.
func protocolOf(path string) (string, bool) {
	at := strings.IndexAny(path, ":/")
	if at <= 0 || path[at] != ':' {
		return "", false
	}
	return path[:at], true
}

// open opens the image. On an error nothing is left behind.
func (img *image) open(warn func(string)) (blockcore.Driver, error) {
	if img.isNull {
		return img.openNull()
	}
	if img.raw.AIO == raw.AIONative && !img.raw.Cache.Direct {
		return nil, openError(img.display, errNativeNeedsDirect)
	}
	options := img.raw
	options.Warn = warn
	if img.minBlock() != 0 || img.guarded() {
		options.RequireAlign512 = true
		options.Guard = keepsRaw
	}
	f, err := raw.Open(options)
	if err != nil {
		return nil, openError(img.display, couldNotOpen(&img.raw, err))
	}
	return f, nil
}

// guessedBlock is what QEMU makes the minimum block size when it had to guess the format: whole sectors, so that it sees
// each write that would make the image look like another format.
const guessedBlock = 512

// minBlock is what clients are told to respect; 0 = anything goes.
func (img *image) minBlock() uint32 {
	if img.probe && img.raw.ShareRW && img.node == nil {
		return guessedBlock
	}
	return 0
}

// guarded says that a client must not make the disk look like another format: it would be opened as that the next time, with whatever files it names.
func (img *image) guarded() bool {
	return img.probe && !img.isNull && img.node == nil && !img.raw.ReadOnly
}

// openNull makes a null disk; an offset takes away from its beginning, of which nobody will miss anything.
func (img *image) openNull() (blockcore.Driver, error) {
	options := img.null
	if options.SizeBytes == 0 {
		options.SizeBytes = null.SizeDefault
	}
	if options.SizeBytes -= img.raw.Offset; options.SizeBytes <= 0 {
		return nil, fmt.Errorf("%s: offset %d is behind the end; choose a smaller one", img.display, img.raw.Offset)
	}
	return null.Open(options), nil
}

// couldNotOpen adds QEMU's wording to an error of the file system.
func couldNotOpen(o *raw.Options, err error) error {
	path := o.Path
	var lock *imagelock.ConflictError
	var errno syscall.Errno
	switch {
	case errors.As(err, &lock):
		return &usageError{own: err.Error() + " Stop that one first, or serve a copy", qemu: lock.Message(), hint: lock.Hint(), cause: lock}
	case errors.Is(err, fs.ErrNotExist) && o.CreateBytes > 0:
		return wrong(fmt.Sprintf("%s: there is no directory %s; make it first", path, filepath.Dir(path)), "")
	case errors.Is(err, fs.ErrNotExist):
		return wrong(path+": there is no such file; create it first, or let --create=SIZE make it", fmt.Sprintf("Could not open '%s': %s", path, strerror(syscall.ENOENT)))
	case errors.As(err, &errno):
		return wrong(err.Error(), fmt.Sprintf("Could not open '%s': %s", path, strerror(errno)))
	}
	return err
}

// creates says that the file is to be made. Whether one on an NFS server is there only making it will tell.
func (img *image) creates() bool {
	if img.isNull || img.raw.CreateBytes == 0 || isFilter(img.nodeKind) {
		return false
	}
	_, err := os.Stat(img.raw.Path)
	return img.nfs != nil || errors.Is(err, fs.ErrNotExist)
}

// probingWarning is what QEMU says when it had to guess and the guest could make it guess otherwise next time.
func (img *image) probingWarning() string {
	if !img.probe || img.raw.ReadOnly || img.node != nil {
		return ""
	}
	const indent = "         "
	return fmt.Sprintf("WARNING: Image format was not specified for '%s' and probing guessed raw.\n", img.display) +
		indent + "Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n" +
		indent + "Specify the 'raw' format explicitly to remove the restrictions.\n"
}

// openError puts the image's name before an error, in the words of both doors.
func openError(display string, err error) error {
	prefix := fmt.Sprintf("Failed to blk_new_open '%s': ", display)
	own, qemu := ownText(err), qemuText(err)
	if !strings.Contains(own, display) {
		own = display + ": " + own
	}
	var offset *raw.OffsetError
	if errors.As(err, &offset) {
		qemu = fmt.Sprintf("Offset (%d) cannot be greater than size of the containing file (%d)", offset.Offset, offset.EndBytes)
		if offset.Path == display {
			prefix = "" // it is in no options of the image, but in qemu-nbd's own
		}
	}
	if !strings.HasPrefix(qemu, prefix) {
		qemu = prefix + qemu
	}
	return wrong(own, qemu)
}

// strerror is the C library's text for an error number.
func strerror(errno syscall.Errno) string { return qmp.Strerror(errno) }
