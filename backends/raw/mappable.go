package raw

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mappable reports whether hits of the page cache may be served through a mapping of the file: it is a regular file in the
// page cache, of a file system that is known to behave (docs/decisions/0006-mapped-page-cache.md), and the
// kernel tells the truth about what is in memory.
func mappable(o *Options, fd int, d device) bool {
	switch {
	case o.Map == MapOff, o.Cache.Direct, d.block, d.sizeBytes < pageSize, pageSize > regionBytes:
		return false
	case d.inMemory && d.fileSystem == unix.TMPFS_MAGIC:
	case d.fileSystem == unix.EXT4_SUPER_MAGIC && isExt4(fd):
	default:
		return false
	}
	return tellsResidency(fd)
}

// isExt4 reports whether it is the driver ext4 that has the file, which announces each first store to a page to the
// file system: so a full disk is an error of the store. The driver ext2, whose disks look the same, finds space when it
// writes back, and then it is too late.
func isExt4(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	name := mountedAs(table, unix.Major(st.Dev), unix.Minor(st.Dev))
	return name == "ext4" || name == "ext3"
}

// mountedAs finds in the text of /proc/self/mountinfo which kind of file system a device holds; empty = not known.
// proc(5): the third field is the device, the one behind a lone "-" the kind.
func mountedAs(table []byte, major, minor uint32) string {
	device := fmt.Sprintf("%d:%d", major, minor)
	for line := range bytes.Lines(table) {
		mount, kind, _ := strings.Cut(string(line), " - ")
		if fields := strings.Fields(mount); len(fields) > 2 && fields[2] == device {
			name, _, _ := strings.Cut(kind, " ")
			return name
		}
	}
	return ""
}

// tellsResidency reports whether mincore(2) answers for the file. To those who neither own it nor may write it the kernel says
// that all of it is in memory, because what others have read is a secret (Linux 5.2).
func tellsResidency(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	return st.Uid == uint32(unix.Geteuid()) || unix.Faccessat(fd, "", unix.W_OK, unix.AT_EMPTY_PATH|unix.AT_EACCESS) == nil
}
