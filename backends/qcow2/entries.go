package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// entryChange tells what becomes of an L2 entry of which the bytes [from, to) of its cluster are meant; frees = the entry gives up what it refers
// to. ok = false: that cannot be said by an entry.
type entryChange func(e format.L2Entry, from, to int64) (next format.L2Entry, frees, ok bool)

// changeEntries changes the L2 entries of a range, a piece of an L2 table at a time. Others get their turn in between. It returns how far it came: up
// to where an entry cannot say it.
func (i *Image) changeEntries(t *blockcore.Task, r blockcore.Range, kind freeKind, change entryChange) (done int64, err error) {
	for done < r.Length {
		off := format.Guest(r.Offset + done)
		piece := i.pieceAt(off, r.Length-done)
		n, err := i.changePiece(t, off, piece, kind, change)
		done += n
		if err != nil || n < piece {
			return done, err
		}
		if err := i.freeTooMany(t); err != nil {
			return done, err
		}
		t.Yield()
	}
	return done, nil
}

// pieceAt is how many bytes from off on one piece of an L2 table maps, at most max.
func (i *Image) pieceAt(off format.Guest, max int64) int64 {
	unit := i.l2.pieceBytes / int64(i.g.L2EntryBytes()) << i.g.ClusterBits
	return min(unit-int64(off)&(unit-1), max)
}

func (i *Image) changePiece(t *blockcore.Task, off format.Guest, n int64, kind freeKind, change entryChange) (done int64, err error) {
	lock := i.changes.Acquire(t, i.clustersOf(off, n), true)
	defer i.changes.Release(lock)
	prepared := false
	for done < n {
		at, err := i.place(t, off)
		if err != nil {
			return done, err
		}
		from := i.g.GuestInCluster(off)
		to := min(i.g.ClusterBytes(), from+n-done)
		old, _, err := i.rawEntry(t, off)
		if err != nil {
			return done, err
		}
		next, frees, ok := change(old, from, to)
		if !frees { // what is given up as a whole need not be right
			_, err = i.entry(t, off)
		}
		if !ok || err != nil {
			return done, err
		}
		if next != old {
			if !prepared {
				if err := i.prepare(t, off, n-done); err != nil {
					return done, err
				}
				prepared = true
				if at, err = i.place(t, off); err != nil {
					return done, err
				}
			}
			piece, err := i.l2.get(t, at.piece)
			if err != nil {
				return done, err
			}
			i.setEntry(t, piece, at, next)
			if i.external || !frees && old.Offset() != 0 {
				i.keep(i.clustersOf(off, 1))
			}
			if frees {
				i.freeEntry(t, old, kind)
			}
		}
		done, off = done+to-from, off+format.Guest(to-from)
	}
	return done, nil
}
