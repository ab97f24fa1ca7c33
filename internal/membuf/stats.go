package membuf

// Stats is a moment in the life of a Pool. Sizes are those of classes, not of what was asked for.
type Stats struct {
	InUse   int64  // bytes that are out; what a Cache keeps counts as out
	Buffers int64  // how many buffers that is
	Cached  int64  // bytes of idle buffers with their pages
	Mapped  int64  // bytes of address space, with what is cold
	Maps    uint64 // calls of mmap
	Unmaps  uint64 // calls of munmap
	Trims   uint64 // buffers given back because more than cachedMax was idle
}

// Stats returns the figures of this moment.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		InUse:   p.inUse,
		Buffers: p.out,
		Cached:  p.cached,
		Mapped:  p.mapped,
		Maps:    p.maps,
		Unmaps:  p.unmaps,
		Trims:   p.trims,
	}
}
