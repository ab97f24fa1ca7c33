package blocktest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/membuf"
)

// model is what the disk should hold: a flat array of bytes.
type model struct {
	d     *disk
	bytes []byte
}

func newModel(d *disk) *model {
	return &model{d: d, bytes: make([]byte, d.Driver.Size())}
}

func (m *model) slice(r blockcore.Range) []byte { return m.bytes[r.Offset:r.End()] }

// check reads r and compares.
func (m *model) check(r blockcore.Range) {
	m.d.t.Helper()
	requireSame(m.d.t, m.slice(r), m.d.read(r.Offset, r.Length), r.Offset)
}

// checkAll compares the whole disk.
func (m *model) checkAll() {
	m.d.t.Helper()
	m.check(blockcore.Range{Length: int64(len(m.bytes))})
}

func (m *model) write(off int64, p []byte, flags blockcore.WriteFlags) {
	m.d.t.Helper()
	m.d.write(off, p, flags)
	if !m.d.Forgets {
		copy(m.bytes[off:], p)
	}
}

func (m *model) zero(r blockcore.Range, flags blockcore.ZeroFlags) {
	m.d.t.Helper()
	m.d.zero(r, flags)
	clear(m.slice(r))
}

// discard allows each byte to be what it was, or zero, and takes over what it is.
func (m *model) discard(r blockcore.Range) {
	m.d.t.Helper()
	m.d.discard(r)
	got := m.d.read(r.Offset, r.Length)
	want := m.slice(r)
	const step = 512
	for at := 0; at < len(got); at += step {
		end := min(at+step, len(got))
		if bytes.Equal(got[at:end], want[at:end]) || membuf.AllZero(got[at:end]) {
			continue
		}
		for i := at; i < end; i++ {
			if got[i] != want[i] && got[i] != 0 {
				require.Failf(m.d.t, "discard made up data", "byte %#x is %#x, was %#x", r.Offset+int64(i), got[i], want[i])
			}
		}
	}
	copy(want, got)
}

// checkStatus asks for the map of r and compares it with the contents: what is said to be zero must be.
func (m *model) checkStatus(r blockcore.Range, max int) []blockcore.Extent {
	m.d.t.Helper()
	exts := m.d.status(r, max)
	at := r.Offset
	for _, e := range exts {
		part := blockcore.Range{Offset: at, Length: e.Length}
		if e.Status&blockcore.ExtentZero != 0 && !membuf.AllZero(m.slice(part)) {
			require.Failf(m.d.t, "the map is wrong", "%v is said to be zero and is not", part)
		}
		at = part.End()
	}
	return exts
}

// requireSame compares without printing megabytes.
func requireSame(t reporter, want, got []byte, off int64) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	require.Len(t, got, len(want))
	for i := range want {
		if want[i] != got[i] {
			require.Failf(t, "contents differ", "first at %#x: want %#x, got %#x", off+int64(i), want[i], got[i])
		}
	}
}

// pattern returns n bytes, none of them zero, that tell seed and place.
func pattern(seed uint64, n int64) []byte {
	const word, ones = 8, 0x0101010101010101 // a word at a time, with a bit in each byte
	p := make([]byte, n+word)
	rng := rand.New(rand.NewPCG(seed, 1))
	for at := int64(0); at < n; at += word {
		binary.NativeEndian.PutUint64(p[at:], rng.Uint64()|ones)
	}
	return p[:n:n]
}
