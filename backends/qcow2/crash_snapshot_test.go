package qcow2

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// moment is when a snapshot came to be or went.
type moment struct {
	interval
	name string
	made bool
}

// shutter takes snapshots between the batches of a crasher, and applies and deletes them. Nothing else is under way then.
type shutter struct {
	*crasher
	all     map[string][]uint64 // what the sectors are stamped with in each snapshot that ever was
	alive   []string
	moments []moment
}

// stamps reads what the sectors are stamped with now.
func (s *shutter) stamps() []uint64 {
	p := s.rig.contents()
	all := make([]uint64, len(p)/512)
	for k := range all {
		all[k] = binary.BigEndian.Uint64(p[512*k:])
	}
	return all
}

// one does one change and notes when.
func (s *shutter) one(t *testing.T) {
	t.Helper()
	h := s.m.h
	kind := s.random.IntN(3)
	if len(s.alive) == 0 {
		kind = 0
	}
	var name string
	if kind > 0 {
		name = s.alive[s.random.IntN(len(s.alive))]
	}
	switch kind {
	case 0:
		name = fmt.Sprintf("s%d", len(s.all))
		s.all[name] = s.stamps()
		s.alive = append(s.alive, name)
		s.moments = append(s.moments, moment{interval{begin: h.tick()}, name, true})
		require.NoError(t, s.rig.createSnapshot(name))
		s.moments[len(s.moments)-1].end = h.tick()
	case 1:
		s.alive = slices.DeleteFunc(s.alive, func(n string) bool { return n == name })
		s.moments = append(s.moments, moment{interval{begin: h.tick()}, name, false})
		require.NoError(t, s.rig.deleteSnapshot(name))
		s.moments[len(s.moments)-1].end = h.tick()
	case 2:
		begin := h.tick()
		first := len(h.ops)
		for k, stamp := range s.all[name] {
			h.ops = append(h.ops, guestOp{interval: interval{begin: begin}, first: int64(k), count: 1, stamp: stamp, fua: true})
		}
		require.NoError(t, s.rig.applySnapshot(name))
		end := h.tick()
		for k := first; k < len(h.ops); k++ {
			h.ops[k].end = end
		}
	}
}

// verify compares the snapshots that a crash has left with those that there may be, and with what they are of.
func (s *shutter) verify(t *testing.T, got map[string][]uint64, at int) {
	t.Helper()
	there, may := map[string]bool{}, map[string]bool{}
	for _, m := range s.moments {
		switch {
		case m.begin > at:
			continue
		case m.end != 0 && m.end <= at:
			there[m.name] = m.made
			delete(may, m.name)
		default:
			may[m.name] = true
		}
	}
	for name, is := range there {
		if _, has := got[name]; has != is && !may[name] {
			require.FailNow(t, "snapshots", "%s at moment %d: there: %v", name, at, has)
		}
	}
	for name, stamps := range got {
		if !slices.Equal(stamps, s.all[name]) {
			require.FailNow(t, "snapshots", "%s is not what the disk was, at moment %d", name, at)
		}
	}
}

// Goal: a power cut at any moment, also while a snapshot is created, deleted or applied, leaves every snapshot that there was as it was, the one in
// question or not, the disk as it was flushed, and no error but counts that are too high, which a check puts right. Method: as for TestPowerCuts, with
// snapshots between the batches; qemu-img repairs some of what the cuts leave.
func TestPowerCutsAmongSnapshots(t *testing.T) {
	small := int64(2048)
	for _, c := range []struct {
		name, options string
		o             Options
	}{
		{"default", "", Options{Unmap: true}},
		{"small clusters", "cluster_size=512,refcount_bits=64", Options{Unmap: true, Caches: CacheSizes{L2: &small, Refcount: &small}}},
		{"subclusters", "cluster_size=16k,extended_l2=on", Options{Unmap: true}},
		{"lazy", "cluster_size=4k,lazy_refcounts=on", Options{Unmap: true, Overlap: OverlapCheck{Level: OverlapAll}}},
		{"old version", "compat=0.10,cluster_size=1k", Options{Unmap: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			t.Cleanup(func() { t.Logf("seed %d", seed) })
			random := rand.New(rand.NewPCG(seed, 0))
			path := create(t, filepath.Join(scratch(t), "image"), "1M", c.options)
			base, err := os.ReadFile(path)
			require.NoError(t, err)
			s := &shutter{all: map[string][]uint64{}}
			stamp := uint64(0)
			for round := range 3 {
				m := &memory{bytes: append([]byte(nil), base...), random: rand.New(rand.NewPCG(seed, uint64(round)+1)), h: &history{}}
				r := newRig(t)
				file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "memory", Context: r.ctx, Driver: m})
				require.NoError(t, err)
				c.o.Warn = func(text string) { t.Log(text) }
				n, err := put(r.graph, "image", file, c.o)
				require.NoError(t, err)
				r.use(n)
				s.crasher = &crasher{rig: r, m: m, random: random, stamp: stamp, size: n.Size() / 512}
				s.moments = nil
				for _, name := range s.alive {
					s.moments = append(s.moments, moment{interval{begin: -1, end: -1}, name, true})
				}
				for range 15 {
					s.batch(t)
					s.one(t)
				}
				r.close()
				stamp = s.stamp
				before, _ := verify(t, base, false)
				sectors := m.h.sectors(len(before))
				for cut := range 200 {
					at := random.IntN(m.h.now + 1)
					p := m.h.crash(base, at, random)
					got, kept := verify(t, p, true)
					s.verify(t, kept, at)
					flushed := m.h.flushed(at)
					for k, ops := range sectors {
						if !may(got[k], before[k], ops, at, flushed) {
							require.FailNow(t, "neither old nor new", "round %d, moment %d, sector %d: %d", round, at, k, got[k])
						}
					}
					if cut%50 == 0 {
						require.NoError(t, os.WriteFile(path, p, 0o600))
						tool(t, "qemu-img", "check", "-q", "-f", "qcow2", "-r", "all", path)
						p, err = os.ReadFile(path)
						require.NoError(t, err)
						again, after := verify(t, p, false)
						require.Equal(t, got, again)
						require.True(t, maps.EqualFunc(kept, after, slices.Equal))
					}
				}
				verify(t, m.bytes, false)
				base = m.bytes
			}
		})
	}
}
