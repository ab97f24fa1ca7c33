package nfs

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// Bounds of what is held, each with its reason.
const (
	// heldBytesMax bounds the memory: who wants to write more waits for a COMMIT.
	heldBytesMax = 32 << 20
	// commitAhead is from where on a COMMIT is made before anybody asks for it, so that nobody has to wait for room.
	commitAhead = heldBytesMax / 2
	// runsPatience is how many restarts of the server in a row are met by WRITE and COMMIT. After that what it has lost is written with FILE_SYNC,
	// which a COMMIT need not confirm: a server with another verifier in each reply would otherwise never be done.
	runsPatience = 3
	// runsMost is when that is given up as well.
	runsMost = 10
)

// settle makes durable all that was held up to seq. One COMMIT serves all who wait for it; who comes while one is under way waits for the next,
// since his writes may have come too late for it.
func (f *File) settle(t *blockcore.Task, seq uint64) error {
	for f.durable < seq {
		if f.unwanted(t) {
			return blockcore.ErrCancelled
		}
		if f.committing {
			t.Wait(&f.settlers)
			continue
		}
		f.committing = true
		err := f.commit(t)
		f.committing = false
		f.unsettled = err != nil
		f.settlers.WakeAll()
		f.roomers.WakeAll()
		if err != nil {
			return err
		}
	}
	return nil
}

// commit makes durable all that is held now. When it fails everything is still held, and is written again the next time: the server may have lost any
// of it, and says so only once.
func (f *File) commit(t *blockcore.Task) error {
	for run := 0; run < runsMost; run++ {
		if f.held.stale > 0 {
			how := wire.Unstable
			if run >= runsPatience {
				how = wire.FileSync
			}
			if err := f.replay(t, how); err != nil {
				return err
			}
		}
		upTo := f.held.seq
		if f.held.pages.count == 0 {
			f.durable = upTo
			return nil
		}
		f.counters.commits.Add(1)
		g, err := f.one(t, wire.ProcCommit, 0)
		verifier := g.verifier
		f.calls.giveGroup(g)
		if err != nil {
			if !errors.Is(err, errSilent) {
				f.held.doubt(upTo)
			}
			return err
		}
		stale := f.held.stale
		f.held.committed(f.ctx.Buffers(), upTo, verifier)
		if f.held.stale == 0 {
			f.durable = upTo
			return nil
		}
		if f.held.stale > stale {
			f.counters.replays.Add(1)
		}
	}
	return fmt.Errorf("the server has forgotten what was written %d times in a row: %w", runsMost, syscall.EIO)
}

// replay writes again what the server may have lost. It has each range for itself while it does, so that nothing newer is written over.
func (f *File) replay(t *blockcore.Task, how wire.Stable) error {
	for _, r := range f.held.staleRuns(int64(f.writeMax)) {
		if err := f.replayAlone(t, r, how); err != nil {
			return fmt.Errorf("write again what the server has lost: %w", err)
		}
	}
	// A READ that was under way meanwhile may have seen the file without it.
	f.replays++
	return nil
}

func (f *File) replayAlone(t *blockcore.Task, r blockcore.Range, how wire.Stable) error {
	lock := f.locks.AcquireWanted(t, f.node, r, true)
	if lock == nil {
		return blockcore.ErrCancelled
	}
	g := f.calls.takeGroup(t)
	g.lock = lock
	err := f.replayRun(t, g, r, how)
	if !g.handed {
		f.locks.Release(lock)
	}
	f.calls.giveGroup(g)
	return err
}

func (f *File) replayRun(t *blockcore.Task, g *group, r blockcore.Range, how wire.Stable) error {
	buf := t.Buffers().Get(int(r.Length))
	defer t.Buffers().Put(buf)
	var sent []*page
	for off := r.Offset; off < r.End(); off += pageBytes {
		if p := f.held.pages.at(off / pageBytes); p != nil && p.stale {
			sent = append(sent, p)
			copy(buf[off-r.Offset:], p.data)
		}
	}
	// Runs of bytes that are held, across pages.
	var from, to int64 = -1, -1
	send := func() {
		if from >= 0 {
			f.submit(t, g, wire.ProcWrite, buf[from-r.Offset:to-r.Offset], from, how)
		}
	}
	for _, p := range sent {
		base := p.index * pageBytes
		for at := 0; ; {
			begin, end := p.nextRun(at)
			if begin == end {
				break
			}
			if base+int64(begin) != to {
				send()
				from = base + int64(begin)
			}
			to = base + int64(end)
			at = end
		}
	}
	send()
	if err := f.await(t, g); err != nil {
		return err
	}
	for _, p := range sent {
		switch {
		case f.held.pages.at(p.index) != p: // on stable storage, and dropped
		case !g.unstable:
			f.held.remove(t.Buffers(), p)
		case !g.mixed:
			p.verifier = g.verifier
			f.held.setStale(p, false)
		}
	}
	return nil
}

// nextRun returns the first run of bytes from at on that are held; an empty one if there is none.
func (g *page) nextRun(at int) (from, to int) {
	if g.mask == nil {
		return at, pageBytes
	}
	from = g.seek(at, pageBytes, true)
	return from, g.seek(from, pageBytes, false)
}

// makeRoom waits until so many pages more may be held, and reserves them.
func (f *File) makeRoom(t *blockcore.Task, pages int64) error {
	need := pages * pageBytes
	for f.held.bytes()+f.reserved+need > heldBytesMax {
		if f.unwanted(t) {
			return blockcore.ErrCancelled
		}
		switch {
		case f.held.pages.count > 0:
			if err := f.settle(t, f.held.seq); err != nil {
				return fmt.Errorf("make room: %w", err)
			}
		case f.reserved > 0:
			t.Wait(&f.roomers)
		default:
			f.reserved += need // it is alone, and may be larger than everything
			return nil
		}
	}
	f.reserved += need
	return nil
}

// giveRoom ends a reservation: what was written is held now.
func (f *File) giveRoom(pages int64) {
	f.reserved -= pages * pageBytes
	f.roomers.WakeAll()
}

// settleAhead has a COMMIT made before there is no room left. After one that has failed the next one is for somebody who waits for it.
func (f *File) settleAhead() {
	if f.held.bytes() < commitAhead || f.committing || f.ahead || f.unsettled {
		return
	}
	f.ahead = true
	work := func(t *blockcore.Task) {
		_ = f.settle(t, f.held.seq) // what failed is still held, and told to whom it concerns
		f.ahead = false
	}
	if f.node != nil {
		f.node.Background("COMMIT ahead of need", work)
		return
	}
	f.ctx.Spawn(blockcore.BodyFunc(work))
}
