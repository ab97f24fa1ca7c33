package qcow2

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// cutter makes what power cuts leave of a disk, at moments that come one after the other.
//
// INVARIANT: p[:sizeBytes] has the first done of m's writes in it, all of which are durable by the moment that was asked for last.
type cutter struct {
	m         *memory
	p         []byte
	sizeBytes int64
	done      int
	undo      []piece
	// sizeThen is the length without what undo takes back, high the greatest since.
	sizeThen, high int64
}

// piece is bytes that were written over.
type piece struct {
	off int64
	old []byte
}

func newCutter(m *memory) *cutter {
	c := &cutter{m: m}
	c.set(int64(len(m.base)), nil, 0)
	copy(c.p, m.base)
	return c
}

// set makes the disk as long as that; what it gains reads as zeroes.
func (c *cutter) set(sizeBytes int64, data []byte, off int64) {
	if more := sizeBytes - int64(len(c.p)); more > 0 {
		c.p = append(c.p, make([]byte, more)...)
	}
	c.sizeBytes, c.high = sizeBytes, max(c.high, sizeBytes)
	copy(c.p[off:], data)
}

// apply does a write, or a part of it, for good or until revert.
func (c *cutter) apply(off int64, data []byte, forGood bool) {
	if !forGood {
		end := min(off+int64(len(data)), int64(len(c.p)))
		if off < end {
			c.undo = append(c.undo, piece{off, append([]byte(nil), c.p[off:end]...)})
		}
	}
	c.set(max(c.sizeBytes, off+int64(len(data))), data, off)
}

// resize is apply for a change of the length.
func (c *cutter) resize(sizeBytes int64, forGood bool) {
	if sizeBytes < c.sizeBytes {
		if !forGood {
			c.undo = append(c.undo, piece{sizeBytes, append([]byte(nil), c.p[sizeBytes:c.sizeBytes]...)})
		}
		clear(c.p[sizeBytes:c.sizeBytes])
	}
	c.set(sizeBytes, nil, 0)
}

// synced tells when the last sync began that had ended at a moment.
func (m *memory) synced(at int) int {
	synced := 0
	for _, s := range m.syncs {
		if s.begin > at {
			break
		}
		if s.end != 0 && s.end <= at {
			synced = s.begin
		}
	}
	return synced
}

// cut returns what a power cut at a moment leaves. It is good until the next call.
func (c *cutter) cut(at int, random *rand.Rand) shot {
	synced := c.m.synced(at)
	durable := func(w *diskWrite) bool { return w.end != 0 && w.end < synced }
	for c.done < len(c.m.writes) && durable(&c.m.writes[c.done]) {
		if w := &c.m.writes[c.done]; w.data == nil {
			c.resize(w.off, true)
		} else {
			c.apply(w.off, w.data, true)
		}
		c.done++
	}
	c.sizeThen, c.high = c.sizeBytes, c.sizeBytes
	chance := random.IntN(5) // of 4: how much of what is not durable gets through
	through := func() bool { return random.IntN(4) < chance }
	limit := int64(1) << 62 // the journal of a file system keeps the order of what changes lengths
	for k := c.done; k < len(c.m.writes); k++ {
		w := &c.m.writes[k]
		if w.begin > at {
			break
		}
		if w.data == nil {
			switch {
			case limit < 1<<62:
			case durable(w) || w.stableAt(0, 0, at) || through():
				c.resize(w.off, false)
			default:
				limit = min(w.off, c.sizeBytes)
			}
			continue
		}
		whole, get := random.IntN(2) == 0, through()
		for from := int64(0); from < int64(len(w.data)); {
			to := min((w.off+from)&^511+512-w.off, int64(len(w.data)))
			if !whole {
				get = through()
			}
			if durable(w) || w.stableAt(w.off+from, w.off+to, at) || get && w.off+to <= limit {
				c.apply(w.off+from, w.data[from:to], false)
			}
			from = to
		}
	}
	return shot{p: c.p[:c.sizeBytes]}
}

// revert takes back what the last cut had that was not durable.
func (c *cutter) revert() {
	for k := len(c.undo) - 1; k >= 0; k-- {
		copy(c.p[c.undo[k].off:], c.undo[k].old)
	}
	c.undo = c.undo[:0]
	clear(c.p[c.sizeThen:c.high])
	c.sizeBytes = c.sizeThen
}

// Goal: of the disk a power cut leaves what a durable write promises, and no more by it: its sectors, with what others had written to them before, and the length that they take. Method: two hundred
// cuts behind writes of one byte each.
func TestDurableWriteIsDurableAlone(t *testing.T) {
	m := newMemory(make([]byte, 2048), &history{}, nil, nil)
	write := func(off int64, value byte, flags blockcore.WriteFlags) {
		require.NoError(t, m.WriteAt(nil, []byte{value}, off, flags))
	}
	write(0, 1, 0)
	write(600, 2, 0)
	write(601, 3, blockcore.WriteFUA)
	require.NoError(t, m.Resize(nil, 8192))
	require.NoError(t, m.Resize(nil, 4096))
	write(3000, 4, blockcore.WriteFUA)
	require.NoError(t, m.Resize(nil, 5000))
	write(700, 5, 0)
	write(3500, 6, blockcore.WriteFUA)
	c, random := newCutter(m), rand.New(rand.NewPCG(1, 1))
	first, late, lengths := 0, 0, map[int]int{}
	for range 200 {
		s := c.cut(m.h.now, random)
		require.Equal(t, []byte{2, 3, 4, 6}, []byte{s.p[600], s.p[601], s.p[3000], s.p[3500]})
		first, late = first+int(s.p[0]), late+int(s.p[700])/5
		lengths[len(s.p)]++
		c.revert()
	}
	for _, lucky := range []int{first, late, lengths[8192], lengths[4096], lengths[5000]} {
		require.Positive(t, lucky)
		require.Less(t, lucky, 200)
	}
	require.Len(t, lengths, 3)
}
