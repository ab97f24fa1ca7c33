package raw

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// sectorBytes is the unit that sizes are rounded up to, as qemu-nbd does.
const sectorBytes = 512

// Open opens a file or a block device. It may block, so it is called on an ordinary goroutine. On failure
// nothing is left behind, not even the file that it made.
func Open(o Options) (*File, error) {
	f, err := open(&o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Path, err)
	}
	return f, nil
}

func open(o *Options) (_ *File, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	fd, created, err := openPath(o)
	if err != nil {
		return nil, err
	}
	lockFD := -1
	defer func() {
		if err == nil {
			return
		}
		unix.Close(fd)
		if lockFD >= 0 {
			unix.Close(lockFD)
		}
		if created {
			os.Remove(o.Path)
		}
	}()
	if created {
		if err := unix.Ftruncate(fd, o.CreateBytes); err != nil {
			return nil, fmt.Errorf("set the size to %d bytes: %w", o.CreateBytes, err)
		}
	}
	if lockFD, err = takeLocks(o, kernelLocks{}, fd); err != nil {
		return nil, err
	}
	d, err := inspect(fd)
	if err != nil {
		return nil, err
	}
	w, err := placeWindow(o, fd, d)
	if err != nil {
		return nil, err
	}
	return newFile(o, fd, lockFD, d, w), nil
}

// whole is a name from the root on, while the working directory is still that which the name is meant in.
func whole(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

// openPath opens or makes the file, after having refused what is no disk: opening a FIFO would wait and opening a
// character device may have effects.
func openPath(o *Options) (fd int, created bool, err error) {
	st, err := os.Stat(o.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.CreateBytes > 0:
		fd, err = openRetry(o.Path, openFlags(o)|unix.O_CREAT|unix.O_EXCL)
		return fd, err == nil, explainMaking(o, err)
	case err != nil:
		return -1, false, explain(o, err)
	}
	if err := refuseKind(st.Mode()); err != nil {
		return -1, false, err
	}
	fd, err = openRetry(o.Path, openFlags(o))
	if err == nil {
		forgetAccess(fd)
	}
	return fd, false, explain(o, err)
}

// forgetAccess has reads leave the access time alone: nobody asks when a disk was last read, and each READ would pay for
// it. Only the owner of a file may ask for that; others do without.
func forgetAccess(fd int) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NOATIME)
	}
}

func openFlags(o *Options) int {
	flags := unix.O_CLOEXEC
	if o.ReadOnly {
		flags |= unix.O_RDONLY
	} else {
		flags |= unix.O_RDWR
	}
	if o.Cache.Direct {
		flags |= unix.O_DIRECT
	}
	return flags
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0o666)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

const remedyKind = "give the path of a disk image or of a block device"

func refuseKind(mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return fmt.Errorf("it is a directory; %s: %w", remedyKind, unix.EISDIR)
	case mode&fs.ModeNamedPipe != 0:
		return errors.New("it is a FIFO; " + remedyKind)
	case mode&fs.ModeSocket != 0:
		return errors.New("it is a socket; " + remedyKind)
	case mode&fs.ModeCharDevice != 0:
		return errors.New("it is a character device; " + remedyKind)
	case mode&fs.ModeDevice != 0:
		return nil
	}
	return errors.New("it is neither a file nor a block device; " + remedyKind)
}

// explain adds the remedy to errors that have one.
func explain(o *Options, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the caller names the path
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w; create the file first, or have it made with a size", err)
	case errors.Is(err, unix.EROFS) && !o.ReadOnly:
		return fmt.Errorf("%w; open it read-only", err)
	case (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) && !o.ReadOnly:
		return fmt.Errorf("%w; change its mode, or open it read-only", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; change its mode, or that of its directory", err)
	case errors.Is(err, unix.EINVAL) && o.Cache.Direct:
		return fmt.Errorf("%w: %w", errNoDirect, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w; something else holds it exclusively, is it mounted", err)
	}
	return err
}

// explainMaking adds the remedy to errors of making the file, where it is the directory that matters.
func explainMaking(o *Options, err error) error {
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w to make the file; choose a directory that may be written", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w; it is a link that leads nowhere, or has just been made by somebody else: look at it", err)
	}
	return explain(o, err)
}

// window is the part of the file that is the disk.
type window struct {
	base      int64
	sizeBytes int64
	alignment int64 // Limits.Align
	direct    int64 // the multiple that the kernel needs; 1 = none
}

// placeWindow works out size and alignment.
//
// INVARIANT: base is a multiple of what the kernel needs, and the size one of Limits.Align.
func placeWindow(o *Options, fd int, d device) (window, error) {
	w := window{base: o.Offset, direct: d.sectorBytes}
	if o.Cache.Direct {
		var err error
		if w.direct, err = directAlign(fd, d); err != nil {
			return w, err
		}
	}
	w.alignment = w.direct
	if o.RequireAlign512 {
		w.alignment = max(w.alignment, sectorBytes)
	}
	if o.Offset&(w.direct-1) != 0 {
		return w, fmt.Errorf("offset %d is not a multiple of %d, which the device or O_DIRECT needs; choose one that is, or cache=writeback on a file", o.Offset, w.direct)
	}
	unit := max(sectorBytes, w.alignment)
	// Rounded once, behind the offset: rounding the file first would make the disk grow at each opening, by the
	// writes into its own tail, when the offset is no multiple of 512.
	if o.Offset > d.sizeBytes {
		return w, &OffsetError{Path: o.Path, Offset: o.Offset, EndBytes: d.sizeBytes}
	}
	rest, ok := roundUp(d.sizeBytes-o.Offset, sectorBytes)
	if !ok {
		return w, fmt.Errorf("size %d is too large: %w", d.sizeBytes, unix.EFBIG)
	}
	if o.SizeBytes > rest {
		return w, fmt.Errorf("size %d at offset %d is behind the end at %d; choose a smaller one", o.SizeBytes, o.Offset, d.sizeBytes)
	}
	if o.SizeBytes > 0 {
		if o.SizeBytes%unit != 0 {
			return w, fmt.Errorf("size %d is not a multiple of %d; choose one that is", o.SizeBytes, unit)
		}
		rest = o.SizeBytes
	}
	if w.sizeBytes, ok = roundUp(rest, unit); !ok {
		return w, fmt.Errorf("size %d is too large: %w", rest, unix.EFBIG)
	}
	return w, nil
}

func roundUp(n, unit int64) (int64, bool) {
	if n > math.MaxInt64-unit {
		return 0, false
	}
	return (n + unit - 1) &^ (unit - 1), true
}

func newFile(o *Options, fd, lockFD int, d device, w window) *File {
	f := &File{opened: newOpened(o, fd, d, w), path: o.Path, whole: whole(o.Path), lockFD: lockFD, system: kernel{}}
	served.enter(d.number)
	if lockFD >= 0 {
		f.locks = o.locks()
	}
	f.size.Store(w.sizeBytes)
	return f
}

func newOpened(o *Options, fd int, d device, w window) opened {
	next := opened{
		options: *o, fd: fd,
		device: d, base: w.base, eof: d.sizeBytes, directAlign: w.direct,
		readOnly: o.ReadOnly, direct: o.Cache.Direct,
		syncless: o.Cache.NoFlush, writethrough: o.Cache.Writethrough,
		unmap: o.Discard == DiscardUnmap, detect: o.DetectZeroes, guard: o.Guard,
		limits: blockcore.Limits{Align: w.alignment, Preferred: 4096},
		features: blockcore.Features{
			FastZero:   !o.ReadOnly && (!d.block || d.zeroOffload),
			Rotational: d.rotational,
			ReadOnly:   o.ReadOnly,
		},
	}
	if mappable(o, fd, d) {
		next.views = newViews(o, fd, d)
	}
	return next
}

// OffsetError says that a disk would begin behind the end of its file.
type OffsetError struct {
	Path             string
	Offset, EndBytes int64
}

func (e *OffsetError) Error() string {
	return fmt.Sprintf("offset %d is behind the end at %d; choose a smaller one", e.Offset, e.EndBytes)
}
