package filters

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// ownBoth puts a driver on a disk, and gives an owner to each of the two.
func ownBoth(t *testing.T, d blockcore.Driver, o blocktest.FakeOptions) (above, below *rig) {
	t.Helper()
	above = newRigOn(t, d, o)
	below = &rig{t: t, ctx: above.ctx, graph: above.graph, fake: above.fake, disk: above.disk, top: above.disk}
	below.own(below.disk)
	return above, below
}

// progress lets all that can go on do so.
func (r *rig) progress() {
	r.t.Helper()
	for range 10 {
		require.NoError(r.t, r.ctx.Do(func(t *blockcore.Task) error { t.Yield(); return nil }))
	}
}

// Goal: a write through a filter and one past it, into one block, both stand. Method: one of them is held where it is stored, and the
// other one comes; each kind of filter, each order, parts of a block and whole blocks.
func TestWritesBesideAFilter(t *testing.T) {
	for _, kind := range append(kinds, struct {
		name string
		make func(t *testing.T) blockcore.Driver
	}{"window", func(t *testing.T) blockcore.Driver { return made[*Raw](t)(NewRaw(RawOptions{SizeBytes: 32 << 10})) }}) {
		for _, row := range []struct {
			name          string
			aboveFirst    bool
			first, second blockcore.Range
		}{
			{"above first", true, blockcore.Range{Offset: 100, Length: 50}, blockcore.Range{Offset: 600, Length: 70}},
			{"below first", false, blockcore.Range{Offset: 100, Length: 50}, blockcore.Range{Offset: 600, Length: 70}},
			{"whole blocks below first", false, blockcore.Range{Offset: 0, Length: 8192}, blockcore.Range{Offset: 100, Length: 50}},
		} {
			t.Run(kind.name+"/"+row.name, func(t *testing.T) {
				first, second := ownBoth(t, kind.make(t), blocktest.FakeOptions{SizeBytes: 64 << 10, Limits: blockcore.Limits{Align: 4096}})
				if !row.aboveFirst {
					first, second = second, first
				}
				want := make([]byte, 8192)
				gate := blocktest.NewGate()
				first.fake.Add(blocktest.Rule{Op: blocktest.OpWrite, Times: 1, Gate: gate})
				var done []<-chan error
				for i, r := range []*rig{first, second} {
					at := []blockcore.Range{row.first, row.second}[i]
					data := bytes.Repeat([]byte{byte(i + 1)}, int(at.Length))
					copy(want[at.Offset:], data)
					done = append(done, r.startWrite(at.Offset, data))
					r.progress()
				}
				gate.Open()
				require.NoError(t, <-done[0])
				require.NoError(t, <-done[1])
				require.Equal(t, want, first.fake.Contents(blockcore.Range{Length: 8192}))
			})
		}
	}
}
