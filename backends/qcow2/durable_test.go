package qcow2

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: a durable write in place is reached by entries that are on disk, also where another process wrote those and did not sync them (DI-1). Method: an image that was just opened, with
// its data in another file and without; the first durable write syncs the file that has the entries, those that follow write and sync nothing but data.
func TestDurableWriteSyncsWhatItIsReachedBy(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	for _, name := range []string{"default", "external data"} {
		t.Run(name, func(t *testing.T) {
			s := sorts[slices.IndexFunc(sorts, func(s sort) bool { return s.name == name })]
			p := newPlant(t, ctx, s, s.make(t, rand.New(rand.NewPCG(1, 1))), 1, false)
			require.NoError(t, p.open())
			require.NoError(t, p.do(work{workWrite, 0, 64}, flushed)[0])
			require.NoError(t, p.closeAndOpen())
			durably := func() (ofFile, ofData int) {
				file, data := p.syncs()
				for _, err := range p.do(work{workWriteFUA, 3, 5}) {
					require.NoError(t, err)
				}
				ofFile, ofData = p.syncs()
				return ofFile - file, ofData - data
			}
			first, _ := durably()
			require.Equal(t, 1, first)
			written := len(p.file.writes)
			again, ofData := durably()
			require.Zero(t, again+ofData)
			if p.data == nil {
				written++
			}
			require.Len(t, p.file.writes, written)
			p.closeKeeping()
		})
	}
}

// syncs is how often the files were synced, the writes that are durable by themselves left out.
func (p *plant) syncs() (ofFile, ofData int) {
	if p.data != nil {
		ofData = len(p.data.syncs)
	}
	return len(p.file.syncs), ofData
}
