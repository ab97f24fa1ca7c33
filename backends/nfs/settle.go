package nfs

import (
	"fmt"
	"syscall"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// Bounds of what is held, each with its reason.
const (
	// heldBytesMax bounds the memory: who wants to write more waits for a COMMIT.
	heldBytesMax = 32 << 20
	// aheadPart of it is from where on a COMMIT is made before anybody asks for it, so that nobody has to wait for room.
	aheadPart = 2
	// chunkPart of it is how much of a request is written at once: it has to be held, beside what others write.
	chunkPart = 4
	// runsPatience is how many restarts of the server in a row are met by WRITE and COMMIT. After that what it has lost is written with FILE_SYNC,
	// which a COMMIT need not confirm: a server with another verifier in each reply would otherwise never be done.
	runsPatience = 3
	// runsMost is when that is given up as well.
	runsMost = 10
)

// settle makes durable all that was held up to seq. One COMMIT serves all who wait for it; who comes while one is under way waits for the next,
// since his writes may have come too late for it.
func (f *File) settle(t *blockcore.Task, seq uint64) error {
	since := time.Duration(0)
	for f.durable < seq {
		if f.unwanted(t) {
			return blockcore.ErrCancelled
		}
		if f.committing {
			if err := f.wait(t, &f.settlers, &since); err != nil {
				return err
			}
			continue
		}
		f.committing = true
		inLimbo, err := f.commit(t)
		if !inLimbo {
			f.settled(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settled lets the next COMMIT be made.
func (f *File) settled(err error) {
	f.committing = false
	f.unsettled = err != nil
	f.settlers.WakeAll()
	f.roomers.WakeAll()
}

// commit makes durable all that is held now. When it fails everything is still held, and is written again the next time: the server may have lost any
// of it, and says so only once, in an answer that may get lost as well. inLimbo: the COMMIT was given up, and is still under way.
func (f *File) commit(t *blockcore.Task) (inLimbo bool, err error) {
	for run := 0; run < runsMost; run++ {
		if f.held.stale > 0 {
			how := wire.Unstable
			if run >= runsPatience {
				how = wire.FileSync
			}
			if err := f.replay(t, how); err != nil {
				return false, err
			}
		}
		upTo := f.held.seq
		if f.held.pages.count == 0 {
			f.durable = upTo
			return false, nil
		}
		f.counters.commits.Add(1)
		g := f.calls.takeGroup(t)
		g.upTo = upTo
		err := f.one(t, g, wire.ProcCommit, 0)
		handed := g.handed
		if !handed {
			f.concluded(g)
		}
		f.calls.giveGroup(g)
		if err != nil || f.held.stale == 0 {
			return handed, err
		}
	}
	return false, fmt.Errorf("the server has forgotten what was written %d times in a row: %w", runsMost, syscall.EIO)
}

// concluded takes over what is known after the end of a COMMIT.
func (f *File) concluded(g *group) {
	stale := f.held.stale
	if g.err == nil && !g.repeated {
		f.held.committed(f.ctx.Buffers(), g.upTo, g.verifier)
	} else {
		f.doubt() // where it was repeated the answer that was lost may have been the error
	}
	switch {
	case f.held.stale == 0:
		f.durable = max(f.durable, g.upTo)
	case g.err == nil && f.held.stale > stale:
		f.counters.replays.Add(1)
	}
}

// doubt has everything written again, also what WRITEs in flight bring: the server may have executed them before it failed.
func (f *File) doubt() {
	f.held.doubt()
	f.doubted = f.calls.order
}

// makeRoom waits until so many pages more may be held, and reserves them.
func (f *File) makeRoom(t *blockcore.Task, pages int64) error {
	need, since := pages*pageBytes, time.Duration(0)
	for f.held.bytes()+f.reserved+need > f.heldMax {
		if f.unwanted(t) {
			return blockcore.ErrCancelled
		}
		switch {
		case f.held.pages.count > 0:
			if err := f.settle(t, f.held.seq); err != nil {
				return fmt.Errorf("make room: %w", err)
			}
		case f.reserved > 0:
			if err := f.wait(t, &f.roomers, &since); err != nil {
				return err
			}
		default:
			f.reserved += need // it is alone, and may be larger than everything
			return nil
		}
	}
	f.reserved += need
	return nil
}

// awaitCopies waits until there is room for another copy in limbo.
func (f *File) awaitCopies(t *blockcore.Task) error {
	since := time.Duration(0)
	for f.limboBytes > limboBytesMax {
		if err := f.wait(t, &f.roomers, &since); err != nil {
			return err
		}
	}
	return nil
}

// giveRoom ends a reservation: what was written is held now.
func (f *File) giveRoom(pages int64) {
	f.reserved -= pages * pageBytes
	f.roomers.WakeAll()
}

// settleAhead has a COMMIT made before there is no room left. After one that has failed the next one is for somebody who waits for it.
func (f *File) settleAhead() {
	if f.held.bytes() < f.heldMax/aheadPart || f.committing || f.ahead || f.unsettled {
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
