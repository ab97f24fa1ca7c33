package raw

import (
	"errors"
	"fmt"

	"nbd-dataplane/internal/imagelock"
)

// Options say what to open and how.
type Options struct {
	// Path names a regular file or a block device.
	Path string
	// ReadOnly opens the file without the right to write.
	ReadOnly bool
	// Cache chooses the host's caching; the zero value is writeback.
	Cache Cache
	// AIO is the engine the user asked for. The AioContext has it; here it is only checked
	// against Cache.
	AIO AIO
	// Discard says whether discards, and zeroes that may unmap, give storage back.
	Discard Discard
	// DetectZeroes turns writes of zeroes into WriteZeroes.
	DetectZeroes DetectZeroes
	// Map says whether hits of the page cache may be served through a mapping of the file.
	Map Map
	// Offset is where in the file the disk begins, in bytes.
	Offset int64
	// SizeBytes is the length of the disk from Offset on; 0 = to the end of the file.
	SizeBytes int64
	// Locking says whether to take QEMU's image locks.
	Locking imagelock.Mode
	// ForceShare takes no lock and heeds none; only with ReadOnly (qemu-img's -U).
	ForceShare bool
	// ShareRW lets others write the image at the same time, as qemu-nbd does.
	ShareRW bool
	// CreateBytes is the size of the file to make when there is none; 0 = do not make one.
	CreateBytes int64
	// Guard is asked about what a write would put into the first 512 bytes of the disk; an error refuses the write.
	// It needs RequireAlign512. QEMU so keeps a guest from giving its disk another format when raw was a guess.
	Guard func(block0 []byte) error
	// Grows says that whoever opens the file makes it longer, which others have to bear.
	Grows bool
	// RequireAlign512 widens the alignment to 512 bytes: what QEMU does when it guessed the format.
	RequireAlign512 bool
	// Warn is told, in one line each, what was left out or worked around. May be nil.
	Warn func(string)
}

// Cache is the host's caching as QEMU splits it.
type Cache struct {
	Direct       bool // cache.direct: O_DIRECT
	NoFlush      bool // cache.no-flush: flush and FUA do nothing
	Writethrough bool // every write has FUA
}

// ParseCache reads one of QEMU's names for a caching mode.
func ParseCache(s string) (Cache, error) {
	switch s {
	case "none", "off":
		return Cache{Direct: true}, nil
	case "writeback":
		return Cache{}, nil
	case "writethrough":
		return Cache{Writethrough: true}, nil
	case "directsync":
		return Cache{Direct: true, Writethrough: true}, nil
	case "unsafe":
		return Cache{NoFlush: true}, nil
	}
	return Cache{}, fmt.Errorf("cache mode %q: use none, writeback, writethrough, directsync or unsafe", s)
}

// AIO is QEMU's name for who does the I/O.
type AIO uint8

const (
	AIOAuto AIO = iota
	AIOURing
	AIONative // accepted for QEMU's sake; done by io_uring
	AIOThreads
)

// ParseAIO reads one of QEMU's names for an AIO mode.
func ParseAIO(s string) (AIO, error) {
	switch s {
	case "":
		return AIOAuto, nil
	case "io_uring":
		return AIOURing, nil
	case "native":
		return AIONative, nil
	case "threads":
		return AIOThreads, nil
	}
	return AIOAuto, fmt.Errorf("aio mode %q: use io_uring, threads or native", s)
}

// Discard says what becomes of a discard.
type Discard uint8

const (
	DiscardIgnore Discard = iota
	DiscardUnmap
)

// ParseDiscard reads one of QEMU's names for a discard mode.
func ParseDiscard(s string) (Discard, error) {
	switch s {
	case "ignore", "off":
		return DiscardIgnore, nil
	case "unmap", "on":
		return DiscardUnmap, nil
	}
	return DiscardIgnore, fmt.Errorf("discard mode %q: use ignore (off) or unmap (on)", s)
}

// DetectZeroes says what becomes of a write of zeroes.
type DetectZeroes uint8

const (
	DetectOff   DetectZeroes = iota
	DetectOn                 // zeroed, provisioned
	DetectUnmap              // zeroed, storage given back
)

// ParseDetectZeroes reads one of QEMU's names for a detect-zeroes mode.
func ParseDetectZeroes(s string) (DetectZeroes, error) {
	switch s {
	case "off":
		return DetectOff, nil
	case "on":
		return DetectOn, nil
	case "unmap":
		return DetectUnmap, nil
	}
	return DetectOff, fmt.Errorf("detect-zeroes mode %q: use off, on or unmap", s)
}

// Map says whether a file is mapped.
type Map uint8

const (
	MapAuto   Map = iota // as MapOn while all files that the process serves lie on one device
	MapOn                // where the file system is known to do it well, and as far as it pays
	MapOff               // reads and writes are system calls
	MapAlways            // for tests: wherever it can be done, from the first request on
)

// ParseMap reads the name of a mode.
func ParseMap(s string) (Map, error) {
	switch s {
	case "auto":
		return MapAuto, nil
	case "on":
		return MapOn, nil
	case "off":
		return MapOff, nil
	case "always":
		return MapAlways, nil
	}
	return MapAuto, fmt.Errorf("map mode %q: use auto, on, off or always", s)
}

// check refuses what contradicts itself.
func (o *Options) check() error {
	switch {
	case o.Path == "":
		return errors.New("no file name")
	case o.Offset < 0:
		return fmt.Errorf("offset %d is negative", o.Offset)
	case o.SizeBytes < 0:
		return fmt.Errorf("size %d is negative", o.SizeBytes)
	case o.CreateBytes < 0:
		return fmt.Errorf("size %d of the file to create is negative", o.CreateBytes)
	case o.CreateBytes > 0 && o.ReadOnly:
		return errors.New("a new file cannot be read-only; leave out one of the two")
	case o.ForceShare && !o.ReadOnly:
		return errors.New("force-share=on can only be used with read-only images")
	case o.AIO == AIONative && !o.Cache.Direct:
		return errors.New("aio=native was specified, but it requires cache.direct=on, which was not specified; use cache=none")
	case o.DetectZeroes == DetectUnmap && o.Discard != DiscardUnmap:
		return errors.New("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
	}
	return nil
}

func (o *Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}
