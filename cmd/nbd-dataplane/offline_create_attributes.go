package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// createAttributes are what image create -o asks of a new file, where the file system has it.
type createAttributes struct {
	noCOW       bool  // btrfs: blocks are written in place
	extentBytes int64 // XFS: the file grows by pieces of this size
}

const (
	noCOWFlag     = 0x00800000 // FS_NOCOW_FL of linux/fs.h
	hintFlag      = 0x00000800 // FS_XFLAG_EXTSIZE
	fileGetXAttr  = 0x801c581f // FS_IOC_FSGETXATTR
	fileSetXAttr  = 0x401c5820 // FS_IOC_FSSETXATTR
	extentHintMax = 1<<32 - 1
)

// fileXAttr is struct fsxattr of linux/fs.h.
type fileXAttr struct {
	flags, extentBytes, extents, project, cowExtentBytes uint32
	_                                                    [8]byte
}

// give asks it of an empty file. As with QEMU what the file system does not know is left out, and the image is as good without.
func (a createAttributes) give(s storage) {
	local, ok := s.(*localFile)
	if !ok {
		return
	}
	f := local.Disk.File
	if a.noCOW {
		if flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
			_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|noCOWFlag))
		}
	}
	if a.extentBytes <= 0 || a.extentBytes > extentHintMax {
		return
	}
	var attr fileXAttr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fileGetXAttr, uintptr(unsafe.Pointer(&attr))); errno == 0 {
		attr.flags, attr.extentBytes = attr.flags|hintFlag, uint32(a.extentBytes)
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), fileSetXAttr, uintptr(unsafe.Pointer(&attr)))
	}
}
