package nfstest

import "slices"

// span is a run of bytes of a file: begin is in it, end is not.
type span struct{ begin, end int64 }

// ranges is a set of bytes as spans: in order, apart from each other.
type ranges []span

// add puts the bytes of s into the set.
func (r ranges) add(s span) ranges {
	if s.begin >= s.end {
		return r
	}
	i, _ := slices.BinarySearchFunc(r, s.begin, func(have span, at int64) int {
		if have.end < at {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(r) && r[j].begin <= s.end; j++ {
		s = span{min(s.begin, r[j].begin), max(s.end, r[j].end)}
	}
	return slices.Replace(r, i, j, s)
}

// cut takes the bytes of s out of the set. It returns what is left and what was taken.
func (r ranges) cut(s span) (left, taken ranges) {
	for _, have := range r {
		common := span{max(have.begin, s.begin), min(have.end, s.end)}
		if common.begin >= common.end {
			left = append(left, have)
			continue
		}
		taken = append(taken, common)
		if have.begin < common.begin {
			left = append(left, span{have.begin, common.begin})
		}
		if common.end < have.end {
			left = append(left, span{common.end, have.end})
		}
	}
	return left, taken
}

func (r ranges) bytes() (sum int64) {
	for _, s := range r {
		sum += s.end - s.begin
	}
	return sum
}
