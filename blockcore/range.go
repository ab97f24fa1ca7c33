package blockcore

import "fmt"

// Range is a run of bytes of a node: [Offset, Offset+Length).
type Range struct {
	Offset int64 // bytes
	Length int64 // bytes
}

// End returns the offset of the first byte behind r.
func (r Range) End() int64 { return r.Offset + r.Length }

// Overlaps reports whether r and o have a byte in common.
func (r Range) Overlaps(o Range) bool {
	return r.Offset < o.End() && o.Offset < r.End()
}

// Within reports whether r lies inside [0, sizeBytes), without overflow.
func (r Range) Within(sizeBytes int64) bool {
	return r.Offset >= 0 && r.Length >= 0 && r.Offset <= sizeBytes && r.Length <= sizeBytes-r.Offset
}

// Aligned reports whether both ends of r are multiples of align, a power of two.
func (r Range) Aligned(align int64) bool {
	return (r.Offset|r.Length)&(align-1) == 0
}

// Widen returns the smallest range with both ends at multiples of align that holds r.
func (r Range) Widen(align int64) Range {
	begin := r.Offset &^ (align - 1)
	end := (r.End() + align - 1) &^ (align - 1)
	return Range{Offset: begin, Length: end - begin}
}

func (r Range) String() string { return fmt.Sprintf("[%#x, +%#x)", r.Offset, r.Length) }
