package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// album is the snapshots of a plant: those that ever were, and when they came and went.
type album struct {
	all     map[string][]uint64 // what the sectors were stamped with
	moments []moment
	taken   int
}

// moment is when a snapshot came to be or went.
type moment struct {
	interval
	name string
	made bool
}

// snapshotsMax is how many live at once.
const snapshotsMax = 3

// alter does one thing to the snapshots while nobody uses the disk, and notes it.
func (p *plant) alter() error {
	if p.withoutSnapshots() {
		return nil
	}
	all, err := p.rig.root.Node().Snapshots()
	require.NoError(p.t, err)
	kind := p.random.IntN(3)
	if len(all) == 0 || kind == 0 && len(all) < snapshotsMax {
		return p.takeSnapshot()
	}
	s := all[p.random.IntN(len(all))]
	if kind == 1 {
		return p.applySnapshot(s)
	}
	return p.deleteSnapshot(s)
}

func (p *plant) deleteSnapshot(s blockcore.Snapshot) error {
	return p.changed(s.Name, false, func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
		return tx.DeleteSnapshot(d, n, s.ID)
	})
}

// changed does what makes a snapshot be there or not.
func (p *plant) changed(name string, made bool, change func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error) error {
	k := len(p.album.moments)
	p.album.moments = append(p.album.moments, moment{interval{begin: p.h.tick()}, name, made})
	err := p.rig.alter(change)
	if err == nil {
		p.album.moments[k].end = p.h.tick()
	}
	return err
}

// withoutSnapshots is of images that can have none.
func (p *plant) withoutSnapshots() bool { return p.sort.external || p.rig.image.g.RefcountMax() == 1 }

func (p *plant) takeSnapshot() error {
	if p.withoutSnapshots() {
		return nil
	}
	name := fmt.Sprintf("live%d-%d", p.stamp>>32, p.album.taken)
	p.album.taken++
	stamps, err := p.look()
	if err != nil {
		return err
	}
	p.album.all[name] = stamps
	if p.random.IntN(2) == 0 { // the image is ready for it, or not
		p.rig.root.Node().ExpectSnapshot(p.t.Context(), true)
	}
	return p.changed(name, true, func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
		return tx.CreateSnapshot(d, n, blockcore.NewSnapshot{Name: name, Taken: time.Unix(1700000000, 5)})
	})
}

// look reads what the sectors are stamped with.
func (p *plant) look() ([]uint64, error) {
	var stamps []uint64
	err := p.rig.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		buf := t.Buffers().Get(int(p.rig.image.Size()))
		defer t.Buffers().Put(buf)
		if err := e.Read(t, buf, 0); err != nil {
			return err
		}
		for at := 0; at < len(buf); at += 512 {
			stamps = append(stamps, binary.BigEndian.Uint64(buf[at:]))
		}
		return nil
	})
	return stamps, err
}

// applySnapshot makes the disk what it was, with the length that it had.
func (p *plant) applySnapshot(s blockcore.Snapshot) error {
	if len(p.rig.root.Node().Bitmaps().All()) > 0 { // it is refused
		return nil
	}
	stamps, old := p.album.all[s.Name], p.sectors()
	count := max(old, int64(len(stamps)))
	op := &guestOp{count: count, stamps: append(slices.Clone(stamps), make([]uint64, count-int64(len(stamps)))...), fua: true}
	p.h.begin(op)
	k := len(p.h.sizes)
	p.h.sizes = append(p.h.sizes, sizeOp{op.interval, int64(len(stamps))})
	err := p.rig.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
		return tx.ApplySnapshot(d, n, s.ID)
	})
	if err == nil {
		p.h.end(op)
		p.h.sizes[k].end = op.end
	}
	return err
}

// judgeAlbum compares the snapshots that a power cut has left with those that there may be, and with what they are of.
func (p *plant) judgeAlbum(got map[string][]uint64, at int) {
	p.t.Helper()
	there, may := map[string]bool{}, map[string]bool{}
	for _, m := range p.album.moments {
		switch {
		case m.begin > at:
		case m.end != 0 && m.end <= at:
			there[m.name] = m.made
			delete(may, m.name)
		default:
			may[m.name] = true
		}
	}
	for name, is := range there {
		if _, has := got[name]; has != is && !may[name] {
			require.FailNow(p.t, "snapshots", "%s at moment %d: there: %v", name, at, has)
		}
	}
	for name, stamps := range got {
		require.True(p.t, there[name] || may[name], "moment %d: snapshot %s", at, name)
		require.True(p.t, slices.Equal(p.album.all[name], stamps), "moment %d: snapshot %s has changed", at, name)
	}
}

// openAlbum notes what the snapshots hold that there are.
func (p *plant) openAlbum() {
	r, err := newReader(p.before.shots())
	require.NoError(p.t, err)
	past, err := r.past()
	require.NoError(p.t, err)
	p.album = album{all: past}
	for name := range past {
		p.album.moments = append(p.album.moments, moment{interval{begin: -1, end: -1}, name, true})
	}
}

// altering reports whether at a moment a change of snapshots was under way, or had failed before it.
func (p *plant) altering(at int) bool {
	within := func(i interval) bool { return i.begin <= at && (i.end == 0 || i.end > at) }
	return slices.ContainsFunc(p.album.moments, func(m moment) bool { return within(m.interval) }) ||
		slices.ContainsFunc(p.h.sizes, func(s sizeOp) bool { return within(s.interval) })
}

// Goal: what a power cut leaves in the middle of a change of snapshots is put right by QEMU when it opens the image to write to it. Method: the image at every moment
// of a change at which the header says that counts are in doubt, written to by qemu-io, and checked by qemu-img.
func TestQEMUSettlesDoubts(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	random := rand.New(rand.NewPCG(1, 2))
	s := sorts[2]
	d := s.make(t, random)
	p := newPlant(t, ctx, s, d, 1, false)
	p.openAlbum()
	require.NoError(t, p.open())
	require.NoError(t, errors.Join(p.do(work{workWrite, 0, 90}, flushed)...))
	begun := p.h.now
	require.NoError(t, errors.Join(p.takeSnapshot(), p.deleteOldest(), p.applyOldest()))
	require.NoError(t, p.close())
	file, doubts := newCutter(p.file), 0
	for at := begun; at <= p.h.now; at++ {
		cut := file.cut(at, random)
		h, err := format.Parse(slices.Clone(cut.p[:1<<11]), format.ForUse)
		require.NoError(t, err)
		if h.Has(format.IncompatibleDirty) && at%4 == 0 {
			doubts++
			path := filepath.Join(scratch(t), "cut")
			require.NoError(t, os.WriteFile(path, cut.p, 0o600))
			tool(t, "qemu-io", "-f", "qcow2", "-c", "write 0 512", path)
			checkImage(t, path)
		}
		file.revert()
	}
	require.NotZero(t, doubts)
}
