package main

import (
	"errors"
	"fmt"
	"math"
	"syscall"

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
	switch {
	case o.Encrypt != nil:
		return nil, qmp.Errorf("Encrypted qcow2 images are not supported")
	case o.DataFile != nil || o.DataFileRaw:
		return nil, qmp.Errorf("data-file is not supported by blockdev-create")
	}
	return func(c *control.Creation) error { return wordsOfQEMU(o.make(c)) }, nil
}

// make makes the image in the node.
func (o *qcow2Creation) make(c *control.Creation) error {
	return c.On(o.File, func(r *blockcore.Root) error {
		what, err := o.options()
		if err != nil {
			return err
		}
		f := repair.NewFile(r.Edge(), func(fn func(t *blockcore.Task) error) error { return begun(r, fn) })
		if err := f.Truncate(0); err != nil {
			return err
		}
		err = offline.Create(f, nil, what, nil)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return createError(err)
		}
		return nil
	})
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
	if o.Size < 0 || o.Size%sector != 0 {
		return what, fmt.Errorf("Image size must be a multiple of %d bytes", sector)
	}
	what = offline.CreateOptions{SizeBytes: o.Size, LazyRefcounts: o.LazyRefcounts, ExtendedL2: o.ExtendedL2}
	if o.Version == "v2" {
		what.Version = 2
	}
	if o.BackingFile != nil {
		what.Backing = *o.BackingFile
	}
	if o.BackingFormat != nil {
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
	if what.Preallocation == offline.PreallocationFalloc {
		return what, fmt.Errorf("Could not preallocate: %s", strerror(syscall.ENOTSUP))
	}
	return what, what.Check()
}
