package blocktest

import (
	"flag"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"nbd-dataplane/blockcore"
)

const (
	// opsRandom is the length of one random sequence.
	opsRandom = 24
	// sequencesRapid is how many rapid makes if nobody says how many, by its flag or its environment variable.
	sequencesRapid = 100
)

// Goal: no sequence of operations makes the disk differ from a flat array; method: random sequences, which rapid
// shortens when one fails. It prints how to repeat it.
func testRandom(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	if checks := flag.Lookup("rapid.checks").Value; checks.String() == fmt.Sprint(sequencesRapid) {
		require.NoError(t, checks.Set(fmt.Sprint(sequences)))
	}
	rapid.Check(t, func(rt *rapid.T) {
		d := &disk{t: rt, ctx: ctx, Subject: open(t)}
		defer d.close()
		m := newModel(d)
		for range opsRandom {
			m.randomOp(rt)
		}
		m.checkAll()
	})
}

// drawRange draws a range, more often a short one, of whole blocks.
func (m *model) drawRange(rt *rapid.T) blockcore.Range {
	align := m.d.align()
	blocks := int64(len(m.bytes)) / align
	begin := rapid.Int64Range(0, blocks-1).Draw(rt, "begin")
	longest := blocks - begin
	if rapid.IntRange(0, 3).Draw(rt, "short") > 0 {
		longest = min(longest, max(1, 16384/align))
	}
	n := rapid.Int64Range(1, longest).Draw(rt, "blocks")
	return blockcore.Range{Offset: begin * align, Length: n * align}
}

func (m *model) randomOp(rt *rapid.T) {
	r := m.drawRange(rt)
	switch op := rapid.IntRange(0, 19).Draw(rt, "op"); {
	case op < 6:
		m.check(r)
	case op < 12:
		m.write(r.Offset, m.drawContent(rt, r.Length), 0)
	case op == 12:
		m.write(r.Offset, m.drawContent(rt, r.Length), blockcore.WriteFUA)
	case op < 16:
		m.zero(r, blockcore.ZeroFlags(rapid.IntRange(0, 3).Draw(rt, "flags")))
	case op == 16:
		m.discard(r)
	case op == 17:
		m.checkStatus(r, rapid.IntRange(1, 8).Draw(rt, "max"))
	case op == 18:
		m.d.flush()
	default:
		m.reopen()
	}
}

func (m *model) drawContent(rt *rapid.T, n int64) []byte {
	seed := rapid.Uint64().Draw(rt, "content")
	if seed%4 == 0 {
		return make([]byte, n) // what detect-zeroes looks for
	}
	return pattern(seed, n)
}

func (m *model) reopen() {
	if m.d.Reopen == nil {
		return
	}
	m.d.flush()
	m.d.close()
	m.d.Driver = m.d.Reopen()
}
