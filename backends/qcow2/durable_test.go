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
			data := p.file
			if p.data != nil {
				data = p.data
			}
			durably := func() (syncs, ofData, writes int) {
				before, beforeData, written := len(p.file.syncs), len(data.syncs), len(p.file.writes)
				for _, err := range p.do(work{workWriteFUA, 3, 5}) {
					require.NoError(t, err)
				}
				return len(p.file.syncs) - before, len(data.syncs) - beforeData, len(p.file.writes) - written
			}
			first, _, _ := durably()
			again, ofData, writes := durably()
			if p.data != nil {
				require.Equal(t, []int{1, 0, 1, 0}, []int{first, again, ofData, writes})
			} else { // the write itself syncs the file of this test
				require.Equal(t, []int{2, 1, 1, 1}, []int{first, again, ofData, writes})
			}
			p.closeKeeping()
		})
	}
}
