package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// alignMax is the largest alignment that is tried: no disk has larger logical blocks, and
// buffers are aligned to it.
const alignMax = 4096

var errNoDirect = errors.New("the file system does not support O_DIRECT; use cache=writeback")

// directAlign finds the alignment that O_DIRECT needs on fd, of offsets, lengths and memory alike: the
// kernel is asked (statx, Linux 6.1) or else tried with reads, as QEMU does.
func directAlign(fd int, d device) (int64, error) {
	if align, ok, err := statxAlign(fd); ok || err != nil {
		return max(align, d.sectorBytes), err
	}
	return probeAlign(func(p []byte) error {
		_, err := unix.Pread(fd, p, 0)
		return err
	}, d)
}

func statxAlign(fd int) (align int64, ok bool, err error) {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return 0, false, nil
	}
	if st.Dio_offset_align == 0 {
		return 0, false, errNoDirect
	}
	return int64(max(st.Dio_offset_align, st.Dio_mem_align)), true, nil
}

// probeAlign reads from the beginning with smaller alignments first. A file with nothing in it accepts
// any read, so it tells nothing and gets the safe answer.
func probeAlign(read func([]byte) error, d device) (int64, error) {
	if d.sizeBytes == 0 {
		return alignMax, nil
	}
	memory, err := unix.Mmap(-1, 0, 2*alignMax, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, fmt.Errorf("map a page: %w", err)
	}
	defer unix.Munmap(memory)
	for _, align := range []int64{1, 512, 1024, 2048, alignMax} {
		if align < d.sectorBytes {
			continue
		}
		// The buffer starts at an odd multiple of align, so that larger needs show.
		err := read(memory[align : 2*align])
		if !errors.Is(err, unix.EINVAL) {
			return align, nil
		}
	}
	return 0, errNoDirect
}
