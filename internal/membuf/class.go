package membuf

import "math/bits"

const (
	// pageBytes is the alignment of every buffer and the smallest class. No file system
	// asks O_DIRECT for more.
	pageBytes = 4096
	// classBitsMin and classBitsMax bound the classes: one per power of two. The largest holds
	// a request of 64 MiB (NBD proto.md, "Size constraints" allows that much) with its headers.
	classBitsMin = 12
	classBitsMax = 27
	classes      = classBitsMax - classBitsMin + 1

	// slabClasses is the number of classes carved out of slabs: 4 KiB to 256 KiB. Above, a
	// system call per buffer is small beside the page faults of the buffer itself.
	slabClasses = 7
	// slabBytes is eight buffers of the largest carved class.
	slabBytes = 2 << 20
)

// sizeClass returns the class for n bytes, or classes when n is larger than any.
func sizeClass(n int) int {
	if n <= pageBytes {
		return 0
	}
	return min(bits.Len(uint(n-1))-classBitsMin, classes)
}

// classBytes is the size of the buffers of class c.
func classBytes(c int) int { return 1 << (c + classBitsMin) }

// capClass finds the class again from the capacity of a buffer. The result is classes for
// a buffer that has a mapping of its own, and false for what no pool has made.
func capClass(n int) (c int, ok bool) {
	if n > classBytes(classes-1) {
		return classes, n%pageBytes == 0
	}
	if n < pageBytes || n&(n-1) != 0 {
		return 0, false
	}
	return sizeClass(n), true
}

// wholePages rounds n up to whole pages.
func wholePages(n int) int { return (n + pageBytes - 1) &^ (pageBytes - 1) }
