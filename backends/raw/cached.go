package raw

import (
	"os"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

var pageSize = int64(os.Getpagesize())

// CachedFile tells whether all of r is in the page cache now and allocated. It implements blockcore.CacheTeller.
// A page may still be evicted before it is sent: then sendfile waits for the disk, which is rare and bounded.
func (f *File) CachedFile(r blockcore.Range) (fd int, off int64, ok bool) {
	pos := f.base + r.Offset
	if f.direct || f.lacks.cachestat.Load() || pos+r.Length > f.eof {
		return 0, 0, false
	}
	pages := blockcore.Range{Offset: pos, Length: r.Length}.Widen(pageSize)
	var st unix.Cachestat_t
	err := unix.Cachestat(uint(f.fd), &unix.CachestatRange{Off: uint64(pages.Offset), Len: uint64(pages.Length)}, &st, 0)
	if err != nil {
		f.lacks.cachestat.Store(true) // Linux before 6.5, or a file system that does not say
		return 0, 0, false
	}
	if st.Cache != uint64(pages.Length/pageSize) {
		return 0, 0, false
	}
	return f.fd, pos, f.allocated(r)
}

// allocated reports whether no part of r is a hole, as far as it can be known quickly: pages that are cached had their
// place looked up not long ago, so the file system seldom has to read metadata to answer; a run of data that was
// found is remembered.
func (f *File) allocated(r blockcore.Range) bool {
	if f.data.covers(r.Offset) >= r.End() {
		return true
	}
	seen := f.data.generation()
	hole, err := f.system.seek(f.fd, f.base+r.Offset, unix.SEEK_HOLE)
	if err != nil {
		return false
	}
	hole -= f.base
	// What is remembered serves BlockStatus too, whose extents are whole blocks. A file may end inside of one.
	if end, ok := roundUp(hole, f.limits.Align); ok && hole > r.Offset {
		f.data.remember(seen, blockcore.Range{Offset: r.Offset, Length: end - r.Offset})
	}
	return hole >= r.End()
}
