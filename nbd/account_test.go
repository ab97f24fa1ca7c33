package nbd

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: what the server refuses is counted as invalid at the node that does not see it, by its kind. Method: a client that reads and writes
// past the end, and one that may not write; the node's counts.
func TestRefusedRequestsAreCounted(t *testing.T) {
	h := newHouse(t, houseOptions{})
	w := h.dial(dialOptions{})
	w.refused(EInval, w.do(CmdRead, 0, mib, 512, nil))
	w.refused(ENoSpc, w.do(CmdWrite, 0, mib, 0, fill(1, 512)))
	w.refused(ENoSpc, w.do(CmdWriteZeroes, 0, mib, 512, nil))
	w.refused(EInval, w.do(CmdTrim, 0, mib, 512, nil))
	w.refused(EInval, w.do(CmdFlush, CmdFlagNoHole, 0, 0, nil))
	w.refused(EInval, w.do(CmdCache, 0, mib, 512, nil))
	s, err := h.export.Node().Stats()
	require.NoError(t, err)
	want := blockcore.NodeStats{Idle: -1}
	want.Of[blockcore.KindRead].Invalid = 1
	want.Of[blockcore.KindWrite].Invalid = 2
	want.Of[blockcore.KindDiscard].Invalid = 1
	want.Of[blockcore.KindFlush].Invalid = 1
	require.Equal(t, want, s)

	locked := newHouse(t, houseOptions{locked: true})
	w = locked.dial(dialOptions{})
	w.refused(EPerm, w.do(CmdWrite, 0, 0, 0, fill(1, 512)))
	s, err = locked.export.Node().Stats()
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Of[blockcore.KindWrite].Invalid)
}

// Goal: a READ answered out of the page cache is counted. Method: a disk that has a file in memory, and one long READ.
func TestReadsFromCacheAreCounted(t *testing.T) {
	d := newCachedDisk(t, fill(1, 8*mib))
	h := newHouse(t, houseOptions{driver: d})
	w := h.dial(dialOptions{})
	w.read(0, sendfileMin)
	s, err := h.export.Node().Stats()
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Of[blockcore.KindRead].Done)
	require.EqualValues(t, sendfileMin, s.Of[blockcore.KindRead].Bytes)
	require.Positive(t, s.Of[blockcore.KindRead].Time)
}
