package qcow2

import (
	"flag"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

var (
	cutsFlag = flag.Int("qcow2.cuts", cutsDefault, "power cuts that TestPowerCuts makes")
	seedFlag = flag.Uint64("qcow2.seed", 0, "seed of TestPowerCuts; 0 = a random one")
)

const (
	cutsARound    = 250
	batchesARound = 25
)

// change is one of the things that are done to a disk while nobody uses it.
type change struct {
	name string
	// run does it, and notes in the plant's history what may be seen of it.
	run func(p *plant) error
}

// changes come between batches of requests.
var changes = []change{
	{"resize", func(p *plant) error {
		if p.sort.fixed {
			return nil
		}
		most := p.sort.sizeBytes / 512 * 5 / 4
		if p.random.IntN(5) == 0 {
			most *= 4 // the L1 table may have to move
		}
		if err := p.removeLostBitmaps(); err != nil { // they cannot follow
			return err
		}
		return p.resize(1 + p.random.Int64N(most))
	}},
	{"other options", func(p *plant) error {
		o := p.sort.o
		o.Warn = func(string) {}
		lazy := p.random.IntN(2) == 0 && p.rig.image.version >= 3
		o.LazyRefcounts, o.Unmap = &lazy, p.random.IntN(2) == 0
		return p.reopen(o)
	}},
	{"snapshots", (*plant).alter},
	{"snapshots", (*plant).alter},
	{"bitmaps", (*plant).alterBitmaps},
	{"close and open", func(p *plant) error {
		if err := p.close(); err != nil {
			return err
		}
		return p.open()
	}},
}

// batch is requests for sectors of their own, with flushes among them.
func (p *plant) batch() []work {
	var all []work
	size := p.sectors()
	at := p.random.Int64N(size)
	for range 1 + p.random.IntN(12) {
		count := min(1+p.random.Int64N(40), size-at)
		if count <= 0 {
			break
		}
		kind := workKind(p.random.IntN(12))
		all = append(all, work{max(workDiscard, min(kind, workWrite)), at, count})
		at += count + p.random.Int64N(2)*p.random.Int64N(60)
		if p.random.IntN(8) == 0 {
			all = append(all, work{kind: workFlush})
		}
	}
	return all
}

// toil does a round of work. Requests may fail if the plant has faults; the image is what it can be then.
func (p *plant) toil() {
	for range batchesARound {
		for _, err := range p.do(p.batch()...) {
			p.mayFail(err)
		}
		if p.random.IntN(5) == 0 {
			p.mayFail(changes[p.random.IntN(len(changes))].run(p))
		}
		if p.rig.root == nil { // closed, and not open again
			p.faults.armed = false
			require.NoError(p.t, p.mendDirty())
			require.NoError(p.t, p.open())
			p.faults.armed = p.faults.random != nil
		}
	}
}

func (p *plant) mayFail(err error) {
	p.t.Helper()
	if p.faults.met == 0 {
		require.NoError(p.t, err)
	}
}

// mendDirty repairs an image that could not be closed, if it has to be. Nobody uses it.
func (p *plant) mendDirty() error {
	s := &shot{p: p.file.bytes}
	mended, dirty, err := s.mend(p.altering(p.h.now))
	if err != nil || !dirty {
		return err
	}
	p.file.become(mended.p)
	return nil
}

// cuts cuts the power at moments of what has happened, looks at what is left, and returns the last of it, without errors.
func (p *plant) cuts(n int, random *rand.Rand) disks {
	p.t.Helper()
	moments := make([]int, n)
	for k := range moments {
		moments[k] = random.IntN(p.h.now + 1)
	}
	slices.Sort(moments)
	o := newOracle(p.h, p.stampsBefore())
	file := newCutter(p.file)
	var data *cutter
	if p.data != nil {
		data = newCutter(p.data)
	}
	left := p.before
	for k, at := range moments {
		s := file.cut(at, random)
		var d *shot
		if data != nil {
			cut := data.cut(at, random)
			d = &cut
		}
		mended := p.judge(o, &s, d, at, k%8 == 0)
		if k == n-1 {
			left.file = mended.clone().p
			if d != nil {
				left.data = d.clone().p
			}
		}
		file.revert()
		if data != nil {
			data.revert()
		}
	}
	return left
}

// judge looks at what a power cut has left, with the snapshots in it or without.
func (p *plant) judge(o *oracle, file, data *shot, at int, pasts bool) *shot {
	p.t.Helper()
	mended, _, err := file.mend(p.altering(at))
	require.NoError(p.t, err, "moment %d", at)
	r, err := newReader(mended, data, nil)
	require.NoError(p.t, err)
	if p.before.backing != nil {
		r.backing = &shot{p: p.before.backing}
	}
	stamps, err := r.active()
	require.NoError(p.t, err, "moment %d", at)
	require.True(p.t, o.mayBe(int64(len(stamps)), at), "moment %d: %d sectors", at, len(stamps))
	flushed := p.h.flushed(at)
	for s, stamp := range stamps {
		if !o.may(int64(s), stamp, at, flushed) {
			require.FailNow(p.t, "neither old nor new", "moment %d, sector %d: %x", at, s, stamp)
		}
	}
	p.judgeBitmaps(file.p, stamps, at)
	if pasts {
		past, err := r.past()
		require.NoError(p.t, err, "moment %d", at)
		p.judgeAlbum(past, at)
	}
	return mended
}

// Goal: a power cut at any moment leaves an image without errors, in which all is that was flushed, and every sector is old or new, whether or
// not requests failed before it; snapshots stay what they are, while others come and go and are applied too. Method: random work on disks that keep their history, power cuts at
// random moments of it, the next round on what the last one left.
func TestPowerCuts(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-qcow2.seed=%d", seed)
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	rounds := max(*cutsFlag/cutsARound/len(sorts), 1)
	for _, s := range sorts {
		t.Run(s.name, func(t *testing.T) {
			t.Cleanup(func() { t.Logf("-qcow2.seed=%d", seed) })
			random := rand.New(rand.NewPCG(seed, 0))
			first := s.make(t, random)
			d := first
			for round := range rounds {
				p := newPlant(t, ctx, s, d, random.Uint64(), true)
				p.stamp = uint64(round+1) << 32
				p.openAlbum()
				p.openBitmaps()
				if round%3 == 2 {
					p.faults.random, p.faults.probability, p.faults.errno = random, 0.01, syscall.EIO
				}
				require.NoError(t, p.open())
				p.faults.armed = p.faults.random != nil
				p.toil()
				p.faults.armed = false
				p.visible()
				p.visibleBitmaps()
				if random.IntN(2) == 0 {
					require.NoError(t, p.close())
				}
				next := p.cuts(cutsARound, random)
				require.NoError(t, p.close())
				// Where a change of the snapshots has failed and then the close, too, there is something to be repaired.
				image, _, err := (&shot{p: p.file.bytes}).mend(p.faults.met > 0 && p.altering(p.h.now))
				require.NoError(t, err)
				_, err = image.check(offline.RepairNothing)
				require.NoError(t, err)
				if d = next; round%5 == 4 {
					d = first
				}
			}
		})
	}
}
