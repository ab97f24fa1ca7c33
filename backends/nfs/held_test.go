package nfs

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"nbd-dataplane/internal/membuf"
)

// heldModel is a server with its stable and its unstable data, one byte an element, and what a client has to see.
type heldModel struct {
	seen, volatile, stable [5 * pageBytes]byte
	verifier               uint64
}

// Goal: what is held is the newest of each byte that is on no stable storage, whatever the order of writes, stable writes, COMMITs and restarts, and what is written
// again brings the server to what the client has written. Method: random sequences against a flat model.
func TestHeldIsTheNewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := membuf.NewPool(1 << 20)
		buffers := pool.NewCache()
		m := &heldModel{verifier: 1}
		h := &held{}
		write := func(t *rapid.T) (off int, p []byte) {
			off = rapid.IntRange(0, len(m.seen)-1).Draw(t, "off")
			n := rapid.SampledFrom([]int{1, 63, 64, 65, 512, pageBytes, 2*pageBytes + 1}).Draw(t, "n")
			if rapid.Bool().Draw(t, "aligned") {
				off &^= pageBytes - 1
			}
			p = bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, min(n, len(m.seen)-off))
			copy(m.seen[off:], p)
			copy(m.volatile[off:], p)
			return off, p
		}
		commit := func() {
			h.committed(buffers, h.seq, m.verifier)
			m.stable = m.volatile
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off, p := write(t)
				h.put(buffers, int64(off), p, m.verifier)
			},
			"stable write": func(t *rapid.T) {
				off, p := write(t)
				copy(m.stable[off:], p)
				h.overwrite(buffers, int64(off), p, m.verifier)
			},
			"restart": func(*rapid.T) {
				m.volatile = m.stable
				m.verifier++
			},
			"flush": func(t *rapid.T) {
				commit()
				for _, r := range h.staleRuns(2 * pageBytes) {
					for index := r.Offset / pageBytes; index < r.End()/pageBytes; index++ {
						g := h.pages.at(index)
						g.each(0, pageBytes, func(from, to int) { copy(m.volatile[index*pageBytes+int64(from):], g.data[from:to]) })
						g.verifier = m.verifier
						h.setStale(g, false)
					}
				}
				commit()
				require.Zero(t, h.pages.count)
				require.Equal(t, m.seen, m.stable)
			},
			"": func(t *rapid.T) {
				got := m.volatile
				h.overlay(got[:], 0)
				require.True(t, got == m.seen, "a read sees something else than what was written")
				lost := m.stable
				h.overlay(lost[:], 0)
				require.True(t, lost == m.seen, "a crash would lose something that is not held")
				stale := 0
				for g := h.first; g != nil; g = g.next {
					if g.stale {
						stale++
					}
					require.Equal(t, g.mask == nil, h.covers(g.index*pageBytes, pageBytes))
				}
				require.Equal(t, h.stale, stale)
			},
		})
		h.dropAll(buffers)
		require.Zero(t, h.pages.count)
		require.Empty(t, h.pages.leaves)
		h.idle(buffers)
		buffers.Drain()
		require.NoError(t, pool.Close(), "a page was leaked")
	})
}

// Goal: what is held stays within its bound, and writes go on. Method: more is written than may be held, to a server that holds back COMMITs for a while.
func TestHeldIsBounded(t *testing.T) {
	r := newRig(t, nfstestOptions, nil)
	r.close()
	r.server.Put("/export/large", nfstestFile(4*heldBytesMax))
	var err error
	r.file, err = Open(optionsOf(t, r.server, "/export/large"))
	require.NoError(t, err)
	piece := random(1, 3<<20)
	for off := int64(0); off+int64(len(piece)) <= 4*heldBytesMax; off += int64(len(piece)) {
		r.write(off, piece, 0)
		require.NoError(t, r.do(heldWithin(r)))
	}
	require.NoError(t, r.flush())
	require.Zero(t, r.server.UnstableBytes("/export/large"))
	require.Greater(t, r.file.Counters().Commits, uint64(3))
}
