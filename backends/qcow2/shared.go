package qcow2

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// eachReference calls fn for all that an L1 table on disk refers to, in order: runs of clusters of data, and after those of each L2 table the table
// itself. A cluster that is referred to several times comes several times. What is in memory of these tables counts. Nothing is in flight.
func (i *Image) eachReference(t *blockcore.Task, l1 []uint64, fn func(first, count int64) error) error {
	buf := t.Buffers().Get(int(min(i.g.ClusterBytes(), pieceBytes)))
	defer t.Buffers().Put(buf)
	for index := range l1 {
		at := format.L1Entry(l1[index]).Offset()
		if at == 0 {
			continue
		}
		if i.g.InCluster(at) != 0 {
			return i.corrupt(t, true, -1, -1, "L2 table offset %s unaligned (L1 index: %s)", hex(at), hex(index))
		}
		w := references{image: i, table: at, fn: fn}
		for done := int64(0); done < i.g.ClusterBytes(); done += int64(len(buf)) {
			if err := i.readTable(t, buf, at+format.Host(done)); err != nil {
				return err
			}
			if err := w.piece(t, buf); err != nil {
				return err
			}
		}
		if err := w.add(i.g.Index(at), 1); err != nil {
			return err
		}
		if err := w.pass(); err != nil {
			return err
		}
		t.Yield()
	}
	return nil
}

// readTable reads a part of an L2 table, of which pieces that have changed may be in memory only.
func (i *Image) readTable(t *blockcore.Task, p []byte, at format.Host) error {
	if err := readHost(t, i.file.Load(), p, at); err != nil {
		return err
	}
	for done := 0; done < len(p); done += int(i.l2.pieceBytes) {
		if piece := i.l2.peek(at + format.Host(done)); piece != nil {
			copy(p[done:], piece.bytes)
		}
	}
	return nil
}

// references walks through one L2 table, and joins clusters that lie together.
type references struct {
	image        *Image
	table        format.Host
	index        int   // of the next entry
	first, count int64 // run that was not passed yet
	fn           func(first, count int64) error
}

func (w *references) piece(t *blockcore.Task, p []byte) error {
	g := w.image.g
	for k := range len(p) / g.L2EntryBytes() {
		e := g.L2Entry(p, k)
		var err error
		switch at := e.Offset(); {
		case e.Compressed():
			from, n := g.CompressedRange(e)
			err = w.add(g.Index(from), g.Index(from+format.Host(n-1))-g.Index(from)+1)
		case at != 0 && g.InCluster(at) != 0:
			return w.image.corrupt(t, true, -1, -1, "Cluster allocation offset %s unaligned (L2 offset: %s, L2 index: %s)",
				hex(at), hex(w.table), hex(w.index))
		case at != 0:
			err = w.add(g.Index(at), 1)
		}
		if err != nil {
			return err
		}
		w.index++
	}
	return nil
}

func (w *references) add(first, count int64) error {
	if w.count > 0 && first == w.first+w.count {
		w.count += count
		return nil
	}
	err := w.pass()
	w.first, w.count = first, count
	return err
}

func (w *references) pass() error {
	if w.count == 0 {
		return nil
	}
	n := w.count
	w.count = 0
	return w.fn(w.first, n)
}

// errUndone ends a walk that takes back what another one did.
var errUndone = fmt.Errorf("all is undone")

// hold adds one to the refcounts of all that an L1 table refers to, in memory. When it fails they are as they were.
func (i *Image) hold(t *blockcore.Task, l1 []uint64) error {
	held := int64(0)
	err := i.eachReference(t, l1, func(first, count int64) error {
		n, err := i.raise(t, first, count)
		held += n
		return err
	})
	if err != nil {
		i.letGo(t, l1, held)
	}
	return err
}

// holdsAll says to letGo that hold has done all of its work.
const holdsAll = int64(1) << 62

// letGo undoes hold, of its first so many clusters, in memory: nothing on disk relies on it yet.
func (i *Image) letGo(t *blockcore.Task, l1 []uint64, held int64) {
	err := i.eachReference(t, l1, func(first, count int64) error {
		if held == 0 {
			return errUndone
		}
		n := min(count, held)
		held -= n
		return i.lower(t, freed{first: first, count: n})
	})
	if err != nil && err != errUndone {
		i.warn("qcow2: clusters are lost until the image is checked: " + err.Error())
	}
}

// giveUp gives up all that an L1 table refers to, which nothing on disk leads to any more.
func (i *Image) giveUp(t *blockcore.Task, l1 []uint64, kind freeKind) error {
	return i.eachReference(t, l1, func(first, count int64) error {
		i.free(freed{first: first, count: count, kind: kind})
		return i.freeTooMany(t)
	})
}

// raise adds one to the refcounts of clusters that are in use, in memory. It returns for how many it did so.
func (i *Image) raise(t *blockcore.Task, first, count int64) (done int64, err error) {
	for done < count {
		index, entry := i.blockOf(first + done)
		block, err := i.refBlock(t, index)
		if err != nil {
			return done, err
		}
		if block != nil {
			i.refs.blocks.change(t, block)
		}
		for ; done < count && entry < i.g.RefBlockEntries(); done, entry = done+1, entry+1 {
			n := uint64(0)
			if block != nil {
				n = i.g.Refcount(block.bytes, entry)
			}
			switch n {
			case 0:
				return done, fmt.Errorf("qcow2: the refcount of cluster %#x, which is in use, is zero: %w", i.g.Cluster(first+done), syscall.EINVAL)
			case i.g.RefcountMax():
				return done, fmt.Errorf("qcow2: the refcount of cluster %#x cannot become larger: %w", i.g.Cluster(first+done), syscall.EINVAL)
			}
			i.g.SetRefcount(block.bytes, entry, n+1)
		}
	}
	return done, nil
}

// settleCopied has the entries of the active tables say whether what they refer to may be changed in place: if its refcount is one. shared: nothing may.
// A flag that is off is no danger, the other way round only if there is a reference that it denies.
func (i *Image) settleCopied(t *blockcore.Task, shared bool) error {
	for index := range i.l1.entries {
		e := i.l1.entry(index)
		at := e.Offset()
		if at == 0 {
			continue
		}
		if i.g.InCluster(at) != 0 {
			return i.corrupt(t, true, -1, -1, "L2 table offset %s unaligned (L1 index: %s)", hex(at), hex(index))
		}
		for done := format.Host(0); int64(done) < i.g.ClusterBytes(); done += format.Host(i.l2.pieceBytes) {
			if err := i.settlePiece(t, at+done, shared); err != nil {
				return err
			}
		}
		is, err := i.alone(t, at, shared)
		if err != nil {
			return err
		}
		if is != e.Copied() {
			i.countsFirst()
			i.l1.set(index, uint64(e)^format.FlagCopied)
		}
		t.Yield()
	}
	return nil
}

// alone reports whether the refcount of a cluster is one.
func (i *Image) alone(t *blockcore.Task, at format.Host, shared bool) (bool, error) {
	if shared {
		return false, nil
	}
	n, err := i.refcount(t, i.g.Index(at))
	return n == 1, err
}

// settlePiece is settleCopied for a piece of an L2 table. It works on a copy: to look at refcounts may suspend. What is not in the cache does not come there
// either, if order does not count: a small cache would make a commit for it, and clients stand still for that.
func (i *Image) settlePiece(t *blockcore.Task, at format.Host, shared bool) error {
	buf := t.Buffers().Get(int(i.l2.pieceBytes))
	defer t.Buffers().Put(buf)
	if err := i.readTable(t, buf, at); err != nil {
		return err
	}
	changed, err := i.settleEntries(t, buf, shared)
	if err != nil || !changed {
		return err
	}
	if i.l2.peek(at) == nil && i.header.Has(format.IncompatibleDirty) {
		return i.writeMeta(t, buf, at, i.l2.kind)
	}
	piece, err := i.l2.get(t, at)
	if err != nil {
		return err
	}
	i.countsFirst()
	i.l2.change(t, piece)
	copy(piece.bytes, buf)
	return nil
}

// countsFirst has the next commit write refcounts before the flags that depend on them, unless the header says that neither are to be relied on.
func (i *Image) countsFirst() {
	if !i.header.Has(format.IncompatibleDirty) {
		i.unordered = true
	}
}

func (i *Image) settleEntries(t *blockcore.Task, p []byte, shared bool) (changed bool, err error) {
	for k := range len(p) / i.g.L2EntryBytes() {
		e := i.g.L2Entry(p, k)
		is := false
		if at := e.Offset(); !e.Compressed() && at != 0 {
			if is, err = i.alone(t, at, shared); err != nil {
				return changed, err
			}
		}
		if is != e.Copied() {
			e.Descriptor ^= format.FlagCopied
			i.g.SetL2Entry(p, k, e)
			changed = true
		}
	}
	return changed, nil
}
