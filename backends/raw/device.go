package raw

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// device is what an open descriptor turned out to be.
type device struct {
	number      uint64 // of the block device, or of the one that the file's file system is on
	block       bool
	sizeBytes   int64
	sectorBytes int64 // logical block size; 1 for files
	fileSystem  int64 // of files: statfs(2)'s number
	inMemory    bool  // a file system without a disk: nothing in it makes a thread wait
	local       bool  // a file system whose metadata is in memory or on a disk, not on a network or in a process
	rotational  bool
	zeroOffload bool // block devices: the device writes zeroes by itself
}

// localFileSystems are the ones of disks that keep virtual machines, by what statfs(2) calls them.
var localFileSystems = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC}

// inspect looks at an open descriptor.
func inspect(fd int) (device, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return device{}, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return inspectBlock(fd, st.Rdev)
	case unix.S_IFREG:
	default:
		// The path named something else when it was looked at.
		return device{}, errors.New("it is neither a file nor a block device; " + remedyKind)
	}
	d := device{number: st.Dev, sizeBytes: st.Size, sectorBytes: 1}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil {
		d.fileSystem = int64(fs.Type)
		d.inMemory = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
		d.local = d.inMemory || slices.Contains(localFileSystems, fs.Type)
	}
	return d, nil
}

func inspectBlock(fd int, rdev uint64) (device, error) {
	d := device{number: rdev, block: true}
	var size uint64
	if err := ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return d, fmt.Errorf("ask for the size: %w", err)
	}
	d.sizeBytes = int64(size)
	var sector int32
	if err := ioctl(fd, unix.BLKSSZGET, unsafe.Pointer(&sector)); err != nil {
		return d, fmt.Errorf("ask for the block size: %w", err)
	}
	d.sectorBytes = int64(sector)
	d.rotational = queueLimit(rdev, "rotational") == 1
	d.zeroOffload = queueLimit(rdev, "write_zeroes_max_bytes") > 0
	return d, nil
}

// queueLimit reads a number from the request queue of a block device, or of the disk that a partition is on; -1 =
// not known.
func queueLimit(rdev uint64, name string) int64 {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(rdev), unix.Minor(rdev))
	for _, queue := range []string{"queue/", "../queue/"} {
		text, err := os.ReadFile(dir + queue + name)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return n
		}
	}
	return -1
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// discardBlocks is BLKDISCARD: the contents of the range are undefined afterwards.
func discardBlocks(fd int, off, length int64) error {
	r := [2]uint64{uint64(off), uint64(length)}
	return ioctl(fd, unix.BLKDISCARD, unsafe.Pointer(&r))
}

// UsedBytes returns the space that the file takes up, and false where the file system may have to be waited for. On the loop.
func (f *File) UsedBytes(*blockcore.Task) (usedBytes int64, ok bool) {
	var st unix.Stat_t
	if !f.device.local && !f.device.block || unix.Fstat(f.fd, &st) != nil {
		return 0, false
	}
	const blockBytes = 512 // of stat(2)
	return st.Blocks * blockBytes, true
}
