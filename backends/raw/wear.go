package raw

const (
	// wearTrial is how many stores are looked at before it is decided again whether mapped stores pay.
	wearTrial = 4096
	// wearAgainMin is how many of them must have gone to pages that had been stored to before. A store to a page that the
	// kernel holds for clean is a fault, and dearer than a write(2) by up to a microsecond; one to a
	// page that it knows to be dirty is cheaper by one (docs/decisions/0006-mapped-page-cache.md).
	wearAgainMin = wearTrial / 2
)

// wear decides whether stores through the mapping pay. They do where pages are stored to again before the kernel
// has written them back: each write-back makes a page clean, that is write-protected.
type wear struct {
	// Owned by the context.
	epoch  uint64 // a time in which nothing was cleaned, as far as is known
	stores int
	again  int
	pays   bool
}

// cleaned notes that all pages are clean, or may be.
func (e *wear) cleaned() { e.epoch++ }

// store notes a store to the page number of r and reports whether it had better go through the mapping.
func (e *wear) store(r *region, number int64) bool {
	if r.epoch != e.epoch {
		r.epoch, r.stored = e.epoch, pageSet{}
	}
	if r.stored.has(number) {
		e.again++
	} else {
		r.stored.add(number)
	}
	if e.stores++; e.stores == wearTrial {
		e.pays = e.again >= wearAgainMin
		e.stores, e.again = 0, 0
	}
	return e.pays
}
