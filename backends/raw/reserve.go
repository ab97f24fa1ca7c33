package raw

import "golang.org/x/sys/unix"

// reserveShare is what part of the free space may be reserved at once: the rest is for others.
const reserveShare = 16

// reserve gives a new part of the file its place on the disk at once, if the file system is ext4 and has plenty. A buffered write to a hole has ext4
// set aside each block of it by itself, and find a place when it writes back: of 64 KiB written behind the end that was a third of all processor
// time, and the file comes to lie in many pieces. XFS does the like by itself, others gain nothing, and on tmpfs it would be memory. What
// is left at the end is cut off with the rest of what was too long. It fails in silence: then the part stays a hole.
func (f *File) reserve(off, length int64) {
	if f.device.fileSystem != unix.EXT4_SUPER_MAGIC {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &fs); err != nil || fs.Bsize <= 0 || int64(fs.Bavail)/reserveShare < length/fs.Bsize {
		return
	}
	_ = f.system.reserve(f.fd, off, length)
}
