package blockcore

// BitmapInfo is what is known of a Bitmap.
type BitmapInfo struct {
	BitmapState
	Name            string
	GranularityBits uint
	Busy            bool
	MarkedBytes     int64 // in whole granules
}

// Info describes b. Safe from anywhere.
func (b *Bitmap) Info() BitmapInfo {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.list.fit()
	return BitmapInfo{
		BitmapState: b.state, Name: b.name, GranularityBits: b.granularityBits, Busy: b.busy, MarkedBytes: b.set.count << b.granularityBits,
	}
}

// Status returns the runs of r, in turn marked and not, at most max. The first one is marked if marked says so. They end where r does, or before
// when there are more. What is behind the end of the bitmap is not marked. Safe from anywhere.
func (b *Bitmap) Status(r Range, max int) (lengths []int64, marked bool) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.list.fit()
	g := b.granularityBits
	marked = b.set.next(r.Offset>>g, true) == r.Offset>>g && r.Offset>>g < b.set.length
	for at, is := r.Offset, marked; at < r.End() && len(lengths) < max; is = !is {
		end := r.End()
		if n := b.set.next(at>>g, !is); n < b.set.length || is {
			end = min(n<<g, end)
		}
		lengths = append(lengths, end-at)
		at = end
	}
	return lengths, marked
}

// ReadBits writes bits as image formats have them, the lowest first, to p, from the bit first on, a multiple of 64. Where none is set, or all are, p
// is left as it is. Safe from anywhere.
func (b *Bitmap) ReadBits(p []byte, first int64) (none, all bool) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	return b.set.read(p, first)
}

// WriteBits marks what is set in p, which is as ReadBits writes it. Safe from anywhere.
func (b *Bitmap) WriteBits(p []byte, first int64) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.set.write(p, first)
}

// SetBits marks bits of the bitmap. Safe from anywhere.
func (b *Bitmap) SetBits(from, end int64) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.set.set(from, end)
}

// Bits is how many bits the bitmap has. Safe from anywhere.
func (b *Bitmap) Bits() int64 {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.list.fit()
	return b.set.length
}

// SetReadOnly says whether the bitmaps that are kept are where nothing can be written. Safe from anywhere.
func (l *Bitmaps) SetReadOnly(readOnly bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.all {
		b.state.ReadOnly = readOnly && b.state.Persistent
	}
}
