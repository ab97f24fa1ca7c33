package sim

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/simkit"
)

// Goal: a write that a gone client has left is in doubt until something comes after it that has to, and then no more. Method: such a write (2), over an old one (1), and what
// a client reads that has come back at 10, or writes (3); a read at the end may find what is listed.
func TestLateWrites(t *testing.T) {
	left := func(v *volume) *simkit.Write {
		w := &simkit.Write{Tag: 2, Begin: 5}
		v.begin(w, 0, 1)
		return w
	}
	reads := func(t *testing.T, v *volume, tag uint64) { require.NoError(t, v.check(0, tag, 11, 12)) }
	for _, c := range []struct {
		name   string
		happen func(t *testing.T, v *volume)
		may    []uint64
	}{
		{"under way", func(_ *testing.T, v *volume) { left(v) }, []uint64{1, 2}},
		{"under way, and another has read the old one", func(t *testing.T, v *volume) { left(v); reads(t, v, 1) }, []uint64{1, 2}},
		{"failed", func(_ *testing.T, v *volume) { w := left(v); w.End, w.Optional = 8, true }, []uint64{1, 2}},
		{"failed, and not read", func(t *testing.T, v *volume) { w := left(v); w.End, w.Optional = 8, true; reads(t, v, 1) }, []uint64{1}},
		{"failed, and read", func(t *testing.T, v *volume) { w := left(v); w.End, w.Optional = 8, true; reads(t, v, 2) }, []uint64{2}},
		{"late, and not read", func(t *testing.T, v *volume) { v.precede(left(v), 0, 1, 10); reads(t, v, 1) }, []uint64{1}},
		{"late, and read", func(t *testing.T, v *volume) { v.precede(left(v), 0, 1, 10); reads(t, v, 2) }, []uint64{2}},
		{"late in another cell", func(t *testing.T, v *volume) { v.precede(left(v), 1, 1, 10); reads(t, v, 1) }, []uint64{1, 2}},
		{"late, and done in spite of what was read", func(t *testing.T, v *volume) {
			w := left(v)
			v.precede(w, 0, 1, 10)
			reads(t, v, 1)
			w.End = 15
		}, nil},
		{"late, and replaced", func(_ *testing.T, v *volume) {
			w := left(v)
			v.precede(w, 0, 1, 10)
			next := &simkit.Write{Tag: 3, Begin: 11}
			v.begin(next, 0, 1)
			w.End, next.End = 15, 13
		}, []uint64{3}},
		{"in time, and replaced meanwhile", func(_ *testing.T, v *volume) {
			w, next := left(v), &simkit.Write{Tag: 3, Begin: 11}
			v.begin(next, 0, 1)
			w.End, next.End = 15, 13
		}, []uint64{2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for tag := uint64(1); tag <= 3; tag++ {
				v := newVolume("volume", 2)
				v.reset([]uint64{1, 1}, 1)
				c.happen(t, v)
				err := v.check(0, tag, 20, 21)
				require.Equal(t, slices.Contains(c.may, tag), err == nil, "%d: %v", tag, err)
			}
		})
	}
}
