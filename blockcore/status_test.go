package blockcore

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/check"
)

func TestTrim(t *testing.T) {
	// Extents are cut to the range that was asked for, whatever lies before it stays out, and those that were there already are not touched:
	// a table of extents of a wider range.
	one, two := ExtentHole, ExtentZero
	list := func(lengths ...int64) (exts []Extent) {
		for i, l := range lengths {
			exts = append(exts, Extent{Length: l, Status: [2]ExtentStatus{one, two}[i%2]})
		}
		return exts
	}
	table := []struct {
		name         string
		exts         []Extent
		skip, length int64
		want         []Extent
	}{
		{"fits", list(10, 20), 0, 30, list(10, 20)},
		{"longer than asked", list(10, 20), 0, 25, list(10, 15)},
		{"ends with the first", list(10, 20), 0, 10, list(10)},
		{"shorter than asked", list(10, 20), 0, 100, list(10, 20)},
		{"begins inside of the first", list(10, 20), 4, 10, list(6, 4)},
		{"inside of one", list(100), 10, 20, list(20)},
		{"begins with the second", list(10, 20), 10, 20, list(10, 20)[1:]},
		{"begins inside of the third", list(10, 20, 30), 35, 10, []Extent{{Length: 10, Status: one}}},
	}
	for _, row := range table {
		for _, before := range [][]Extent{nil, list(7, 8, 9)} {
			exts := append(append([]Extent(nil), before...), row.exts...)
			got := trim(exts, len(before), row.skip, row.length)
			require.Equal(t, before, append([]Extent(nil), got[:len(before)]...), row.name)
			require.Equal(t, row.want, got[len(before):], row.name)
		}
	}
}

// silent is a mapper that tells nothing.
type silent struct{ *memory }

func (s silent) BlockStatus(_ *Task, _ Range, exts []Extent, _ int) ([]Extent, error) {
	return exts, nil
}

func TestStatusOfNothing(t *testing.T) {
	// A driver that breaks its promise and tells nothing costs the request an error, and nothing more. The check build
	// ends the program instead.
	if check.Enabled {
		return
	}
	c := newTestContext(t, ContextOptions{})
	r := attach(t, c, silent{newMemory(16<<10, Limits{Align: 4096})})
	err := c.Do(func(t *Task) error {
		_, err := r.Edge().BlockStatus(t, Range{5000, 1000}, nil, 1)
		return err
	})
	require.ErrorIs(t, err, syscall.EIO)
	require.Zero(t, r.Node().InFlight())
}

func TestStatusErrors(t *testing.T) {
	// When a driver fails, what the caller had before is what it gets back; a range of nothing is refused.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(4096, Limits{Align: 512})
	m.fail = func(string) error { return syscall.EIO }
	r := attach(t, c, m)
	given := []Extent{{Length: 1}, {Length: 2}}
	for _, row := range []struct {
		r    Range
		want syscall.Errno
	}{{Range{0, 512}, syscall.EIO}, {Range{0, 0}, syscall.EINVAL}} {
		var exts []Extent
		err := c.Do(func(t *Task) (err error) {
			exts, err = r.Edge().BlockStatus(t, row.r, given, 4)
			return err
		})
		require.ErrorIs(t, err, row.want)
		require.Equal(t, given, exts)
	}
	require.Zero(t, r.Node().InFlight())
}
