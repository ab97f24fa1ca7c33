package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/backends/qcow2/repair"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/qmp"
)

// creators are the drivers that blockdev-create knows.
func creators() map[string]control.Creator {
	return map[string]control.Creator{"file": readFileCreation, driverNFS: readNFSCreation, formatQcow2: readQcow2Creation}
}

// sector is what sizes are rounded up to.
const sector = 512

// fileCreation are the options of a file that is to be made.
type fileCreation struct {
	Filename      string `qmp:"filename"`
	Size          int64  `qmp:"size"`
	Preallocation string `qmp:"preallocation,optional,enum=off|metadata|falloc|full"`
	NoCOW         bool   `qmp:"nocow,optional"`
	ExtentHint    int64  `qmp:"extent-size-hint,optional"`
}

func readFileCreation(v qmp.Value) (func(*control.Creation) error, error) {
	var o fileCreation
	if err := v.Decode(&o); err != nil {
		return nil, err
	}
	if o.NoCOW || o.ExtentHint != 0 {
		return nil, qmp.Errorf("nocow and extent-size-hint are not supported")
	}
	return func(*control.Creation) error { return wordsOfQEMU(o.make()) }, nil
}

func (o *fileCreation) make() error {
	how, err := preallocationOf(o.Preallocation)
	if err != nil {
		return err
	}
	if o.Size < 0 || o.Size > math.MaxInt64-sector {
		return fmt.Errorf("Could not resize file: %s", strerror(syscall.EINVAL))
	}
	if how == offline.PreallocationMetadata {
		return errors.New("Unsupported preallocation mode: metadata")
	}
	file, err := (&imageCreate{}).createFile(o.Filename)
	if err != nil {
		return err
	}
	defer file.Close()
	size := o.Size + (sector-o.Size%sector)%sector
	if err := file.Truncate(size); err != nil {
		return fmt.Errorf("Could not resize file: %s", pathText(err))
	}
	if err := offline.Preallocate(file.storage, 0, size, how, nil); err != nil {
		return fmt.Errorf("Could not preallocate data for the new file: %s", pathText(err))
	}
	return nil
}

func preallocationOf(text string) (offline.Preallocation, error) {
	if text == "" {
		return offline.PreallocationOff, nil
	}
	return offline.ParsePreallocation(text)
}

// qcow2Creation are the options of an image that is to be made in a node.
type qcow2Creation struct {
	File          qmp.Value  `qmp:"file"`
	DataFile      *qmp.Value `qmp:"data-file"`
	DataFileRaw   bool       `qmp:"data-file-raw,optional"`
	Size          int64      `qmp:"size"`
	Version       string     `qmp:"version,optional,enum=v2|v3"`
	BackingFile   *string    `qmp:"backing-file"`
	BackingFormat *string    `qmp:"backing-fmt"`
	Encrypt       *qmp.Value `qmp:"encrypt"`
	ClusterSize   *int64     `qmp:"cluster-size"`
	Preallocation string     `qmp:"preallocation,optional,enum=off|metadata|falloc|full"`
	LazyRefcounts bool       `qmp:"lazy-refcounts,optional"`
	RefcountBits  *int64     `qmp:"refcount-bits"`
	Compression   string     `qmp:"compression-type,optional,enum=zlib|zstd"`
	ExtendedL2    bool       `qmp:"extended-l2,optional"`
}

func readQcow2Creation(v qmp.Value) (func(*control.Creation) error, error) {
	var o qcow2Creation
	if err := v.Decode(&o); err != nil {
		return nil, err
	}
	if err := o.judge(); err != nil {
		return nil, err
	}
	return func(c *control.Creation) error { return wordsOfQEMU(o.make(c)) }, nil
}

// judge refuses at once what is wrong in its form.
func (o *qcow2Creation) judge() error {
	if o.Encrypt != nil {
		return qmp.Errorf("Parameter 'encrypt' is not supported: encrypted images are neither made nor opened")
	}
	if o.BackingFormat != nil && !slices.Contains(qemuDrivers, *o.BackingFormat) {
		return qmp.NotAccepted("backing-fmt", *o.BackingFormat)
	}
	if err := control.IsReference(o.File); err != nil || o.DataFile == nil {
		return err
	}
	return control.IsReference(*o.DataFile)
}

// make makes the image in its node, and in that of its data.
func (o *qcow2Creation) make(c *control.Creation) error {
	return c.On(o.File, 0, func(r *blockcore.Root) error {
		what, err := o.options()
		if err != nil {
			return err
		}
		if o.DataFile == nil {
			return o.fill(what, creationFileOf(c, r, "Failed to resize underlying file: "), nil)
		}
		return c.On(*o.DataFile, blockcore.PermWrite, func(data *blockcore.Root) error {
			if what.DataFile = c.Filename(data.Node()); what.DataFile == "" {
				return fmt.Errorf("node '%s' has no file name that the image could know its data file by", data.Node().Name())
			}
			return o.fill(what, creationFileOf(c, r, "Failed to resize underlying file: "), creationFileOf(c, data, ""))
		})
	})
}

// fill makes the image. data is where its data is to lie, nil if that is the image itself.
func (o *qcow2Creation) fill(what offline.CreateOptions, f, data *creationFile) error {
	files, holder := []*creationFile{f}, f
	var external offline.File
	if data != nil {
		files, holder, external = append(files, data), data, data
	}
	if what.Preallocation == offline.PreallocationFalloc {
		if err := holder.canReserve(); err != nil {
			return err
		}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	err := offline.Create(f, external, what, nil)
	for _, file := range files {
		if err == nil {
			err = file.Sync()
		}
	}
	if failed, is := errors.AsType[*resizeError](err); is {
		return failed
	}
	if err != nil {
		return createError(err)
	}
	return nil
}

// creationFile is the file behind an owner's handle.
type creationFile struct {
	offline.File
	creation *control.Creation
	node     *blockcore.Node
	which    string // what is said of it when it cannot be resized
}

func creationFileOf(c *control.Creation, r *blockcore.Root, which string) *creationFile {
	file := repair.NewFile(r.Edge(), func(fn func(t *blockcore.Task) error) error { return begun(r, fn) })
	return &creationFile{File: file, creation: c, node: r.Node(), which: which}
}

// Truncate has the node end there, in a section of its own: it may have others above it, and what it gains is no space that was set apart.
func (f *creationFile) Truncate(sizeBytes int64) error {
	if err := f.creation.Resize(f.node, sizeBytes); err != nil {
		return &resizeError{resizeFailed(f.which, err)}
	}
	return nil
}

// resizeError is an error about a node that has not become as long as the image wanted.
type resizeError struct{ error }

// Allocate sets space in the node apart.
func (f *creationFile) Allocate(at, lengthBytes int64) error {
	a, can := f.File.(offline.Allocator)
	if !can {
		return syscall.ENOTSUP
	}
	return a.Allocate(at, lengthBytes)
}

// canReserve refuses to begin an image in a node that cannot set space apart for it.
func (f *creationFile) canReserve() error {
	err := f.Allocate(0, 0)
	if errors.Is(err, syscall.ENOTSUP) {
		return resizeFailed(f.which, errors.New("Unsupported preallocation mode 'falloc'; 'full' writes zeroes instead"))
	}
	return err
}

func resizeFailed(what string, err error) error {
	return fmt.Errorf("Could not resize image: %s%w", what, err)
}

// begun runs fn as a request of an owner: it waits while the node is drained.
func begun(r *blockcore.Root, fn func(t *blockcore.Task) error) error {
	for {
		moved := false
		err := r.Context().Do(func(t *blockcore.Task) error {
			k := blockcore.Ticket{Op: "create"}
			if moved = !r.Begin(t, &k); moved {
				return nil
			}
			defer r.End(t, &k)
			return fn(t)
		})
		if !moved {
			return err
		}
	}
}

// options are those of the image, judged in QEMU's words.
func (o *qcow2Creation) options() (what offline.CreateOptions, err error) {
	if o.Size%sector != 0 {
		return what, fmt.Errorf("Image size must be a multiple of %d bytes", sector)
	}
	what = offline.CreateOptions{SizeBytes: o.Size, LazyRefcounts: o.LazyRefcounts, ExtendedL2: o.ExtendedL2, DataFileRaw: o.DataFileRaw}
	if o.DataFile != nil {
		what.DataFile = "data" // what it is called is found out later; that there is one counts
	}
	if o.Version == "v2" {
		what.Version = 2
	}
	if o.BackingFile != nil {
		what.Backing = *o.BackingFile
	}
	if o.BackingFormat != nil && (o.BackingFile == nil || what.Backing != "") { // that of no file does not matter
		what.BackingFormat = *o.BackingFormat
	}
	if o.ClusterSize != nil {
		what.ClusterBytes = max(*o.ClusterSize, 1) // 0 would be the default
	}
	if o.RefcountBits != nil {
		what.RefcountBits = int(min(max(*o.RefcountBits, -1), 1<<20))
		if what.RefcountBits == 0 {
			what.RefcountBits = -1
		}
	}
	if o.Compression != "" {
		if err := setCompression(&what, o.Compression); err != nil {
			return what, err
		}
	}
	if what.Preallocation, err = preallocationOf(o.Preallocation); err != nil {
		return what, err
	}
	return what, o.check(what)
}

// check is that of the options, in the words of blockdev-create.
func (o *qcow2Creation) check(what offline.CreateOptions) error {
	err := what.Check()
	switch {
	case len(what.Backing) > format.BackingNameMax:
		return fmt.Errorf("Could not assign backing file '%s' with format '%s': %s", what.Backing, cmp.Or(what.BackingFormat, "(null)"), strerror(syscall.EINVAL))
	case !errors.Is(err, offline.ErrTooLarge):
		return err
	case o.Size < 0:
		return resizeFailed("", errors.New("Image size cannot be negative"))
	case o.Size > sizeMax:
		return resizeFailed("", fmt.Errorf("offset(%d) exceeds maximum(%d)", o.Size, int64(sizeMax)))
	}
	return resizeFailed("Failed to grow the L1 table: ", errors.New(strerror(syscall.EFBIG)))
}

// sizeMax is the longest disk that QEMU makes.
const sizeMax = math.MaxInt64 &^ (1<<30 - 1)
