package blockcore

// slots is a table of objects that are named by number, because no Go pointer may be given to the
// kernel to keep. Owned by the context.
type slots[T any] struct {
	table []*T
	free  []uint32
}

// add puts x into a free slot and returns its number.
func (s *slots[T]) add(x *T) uint32 {
	if last := len(s.free) - 1; last >= 0 {
		i := s.free[last]
		s.free = s.free[:last]
		s.table[i] = x
		return i
	}
	s.table = append(s.table, x)
	return uint32(len(s.table) - 1)
}

// remove empties slot i, which may then name something else.
func (s *slots[T]) remove(i uint32) {
	s.table[i] = nil
	s.free = append(s.free, i)
}

// at returns what is in slot i.
func (s *slots[T]) at(i uint32) *T { return s.table[i] }
