package verifier

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// play sends and answers requests on a disk of one granule of two sectors. A word is a request: w0 and w1 write to a sector, W0 does with FUA, z0
// zeroes, Z0 does with FUA, t0 trims, f flushes, s takes a snapshot while nothing else is under way, c begins to
// and C has taken one; a ? behind a word leaves it without an answer. Writes have the stamps 1, 2, 3 and so on.
func play(t *testing.T, words ...string) *Ledger {
	t.Helper()
	l := NewLedger(2*SectorBytes, 2*SectorBytes, 0)
	for _, word := range words {
		switch word {
		case "s":
			l.Shared()
			continue
		case "c":
			l.Capture()
			continue
		case "C":
			l.Captured()
			continue
		}
		r := request{command: map[byte]uint16{'w': cmdWrite, 'W': cmdWrite, 'z': cmdZeroes, 'Z': cmdZeroes, 't': cmdTrim, 'f': cmdFlush}[word[0]]}
		if word[0] < 'a' {
			r.flags = flagFUA
		}
		if r.command != cmdFlush {
			r.first, r.count = int64(word[1]-'0'), 1
		}
		require.True(t, l.begin(&r), word)
		if word[len(word)-1] != '?' {
			require.NoError(t, l.end(&r, nil), word)
		}
	}
	l.Killed()
	return l
}

// Goal: the ledger takes exactly what a kill may leave. Method: requests, and each stamp that sector 0 might have then.
func TestLedgerKnowsWhatAKillMayLeave(t *testing.T) {
	for _, c := range []struct {
		name  string
		words []string
		may   []uint64
	}{
		{"nothing was done", nil, []uint64{0}},
		{"a write that allocates may be lost", []string{"w0"}, []uint64{0, 1}},
		{"so may one without an answer", []string{"w0?"}, []uint64{0, 1}},
		{"a flush makes it lasting", []string{"w0", "f"}, []uint64{1}},
		{"only one that began later does", []string{"w0?", "f"}, []uint64{0, 1}},
		{"only one that ended does", []string{"w0", "f?"}, []uint64{0, 1}},
		{"FUA does", []string{"W0"}, []uint64{1}},
		{"FUA without an answer does not", []string{"W0?"}, []uint64{0, 1}},
		{"what is overwritten in its place is gone", []string{"w0", "w0"}, []uint64{0, 2}},
		{"but not before there is an answer", []string{"w0", "w0?"}, []uint64{0, 1, 2}},
		{"a lasting place needs no flush", []string{"w0", "f", "w0"}, []uint64{2}},
		{"the place is the granule's", []string{"w1", "f", "w0"}, []uint64{2}},
		{"FUA gives a place too", []string{"W1", "w0"}, []uint64{2}},
		{"zeroes may be lost", []string{"w0", "f", "z0"}, []uint64{0, 1}},
		{"zeroes with FUA may not", []string{"w0", "f", "Z0"}, []uint64{0}},
		{"zeroes take the place", []string{"w0", "f", "z1", "w0"}, []uint64{1, 2}},
		{"in a new place the old one may come back, and all between", []string{"w0", "f", "w0", "z0", "w0", "w0"}, []uint64{0, 2, 4}},
		{"zeroes under way take the place", []string{"w0", "f", "z1?", "w0"}, []uint64{1, 2}},
		{"a snapshot takes the place", []string{"w0", "f", "s", "w0"}, []uint64{1, 2}},
		{"no place is lasting while a snapshot is taken", []string{"w0", "f", "c", "w0", "w0", "C", "w0"}, []uint64{1, 2, 3, 4}},
		{"but one is again after it", []string{"w0", "c", "C", "w0", "f", "w0"}, []uint64{3}},
		{"a trim may do nothing, with a flush too", []string{"w0", "f", "t0", "f"}, []uint64{0, 1}},
		{"but what was before its beginning is gone then", []string{"w0", "f", "z1", "w0", "t0", "f"}, []uint64{0, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for stamp := range uint64(5) {
				l := play(t, c.words...)
				_, err := l.Settle(append(Stamped(0, 1, stamp), Stamped(1, 1, l.sectors[1].last().stamp)...))
				if want := contains(c.may, stamp); want != (err == nil) {
					t.Errorf("stamp %d: %v", stamp, err)
				}
			}
		})
	}
}

func contains(list []uint64, one uint64) bool {
	for _, v := range list {
		if v == one {
			return true
		}
	}
	return false
}

// Goal: half a sector is right only where a request had no answer, and is kept in mind. Method: sectors with the halves of two stamps.
func TestLedgerKnowsHalfSectors(t *testing.T) {
	half := append(append(Stamped(0, 1, 2)[:100], Stamped(0, 1, 1)[100:]...), Stamped(1, 1, 0)...)
	l := play(t, "w0", "f", "w0")
	_, err := l.Settle(half)
	require.Error(t, err)
	l = play(t, "w0", "f", "w0?")
	found, err := l.Settle(half)
	require.NoError(t, err)
	require.Equal(t, 1, found.Torn)
	l.Killed()
	_, err = l.Settle(half)
	require.NoError(t, err)
	_, err = l.Settle(append(Stamped(0, 1, 2), Stamped(1, 1, 0)...))
	require.Error(t, err)
}

// Goal: a snapshot has what was answered before it was asked for, old or new of what was in flight, and nothing later. Method: each stamp that the sector
// might have in the snapshot.
func TestLedgerKnowsWhatASnapshotMayHold(t *testing.T) {
	l := NewLedger(SectorBytes, SectorBytes, 0)
	write := func() *request {
		r := &request{command: cmdWrite, count: 1}
		require.True(t, l.begin(r))
		return r
	}
	require.NoError(t, l.end(write(), nil))
	require.NoError(t, l.end(write(), nil))
	third := write()
	c := l.Capture()
	require.NoError(t, l.end(third, nil))
	require.NoError(t, l.end(write(), nil))
	l.Captured()
	require.NoError(t, l.end(write(), nil))
	for stamp := range uint64(6) {
		if want := stamp >= 2 && stamp <= 4; want != (l.Holds(c, Stamped(0, 1, stamp)) == nil) {
			t.Errorf("stamp %d: %v", stamp, !want)
		}
	}
}
