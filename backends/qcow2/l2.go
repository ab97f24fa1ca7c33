package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// l2Place is where the entry of a guest cluster is: in which piece of which L2 table.
type l2Place struct {
	l1Index int
	index   int         // in the table
	table   format.Host // 0 = there is none
	piece   format.Host
	first   int // entry that the piece begins with
	entries int // of a piece
}

// place finds the entry of the cluster that off is in. It does not suspend, but for reporting corruption.
func (i *Image) place(t *blockcore.Task, off format.Guest) (l2Place, error) {
	p := l2Place{l1Index: i.g.L1Index(off), index: i.g.L2Index(off), entries: int(i.l2.pieceBytes) / i.g.L2EntryBytes()}
	p.first = p.index &^ (p.entries - 1)
	p.table = i.l1.entry(p.l1Index).Offset()
	if i.g.InCluster(p.table) != 0 {
		return p, i.corrupt(t, true, -1, -1, "L2 table offset %s unaligned (L1 index: %s)", hex(p.table), hex(p.l1Index))
	}
	p.piece = p.table + format.Host(p.first*i.g.L2EntryBytes())
	return p, nil
}

// ownTable sees to it that the L2 table of an L1 entry is there and may be changed. A new one is written whole before the entry changes.
func (i *Image) ownTable(t *blockcore.Task, l1Index int) error {
	for {
		e := i.l1.entry(l1Index)
		switch {
		case i.g.InCluster(e.Offset()) != 0:
			return i.corrupt(t, true, -1, -1, "L2 table offset %s unaligned (L1 index: %s)", hex(e.Offset()), hex(l1Index))
		case e.Copied() && e.Offset() != 0:
			return nil
		}
		others := i.l1.owning[l1Index]
		if others == nil {
			break
		}
		t.Wait(others)
	}
	var others blockcore.WaitQueue
	i.l1.owning[l1Index] = &others
	err := i.newTable(t, l1Index)
	delete(i.l1.owning, l1Index)
	others.WakeAll()
	return err
}

func (i *Image) newTable(t *blockcore.Task, l1Index int) error {
	old := i.l1.entry(l1Index).Offset()
	run, err := i.allocate(t, 1, "L2 table")
	if err != nil {
		return err
	}
	if err := i.fillTable(t, run, old); err != nil {
		i.release(t, run)
		return err
	}
	i.l2.forget(t, run.host, i.g.ClusterBytes())
	i.l1.set(l1Index, uint64(run.host)|format.FlagCopied)
	i.unordered = true
	i.metas.remove(i.g.Index(old), metaActiveL2)
	i.metas.add(i.g.Index(run.host), metaActiveL2)
	if old != 0 {
		i.free(freed{first: i.g.Index(old), count: 1, kind: freeOther})
	}
	return nil
}

// fillTable writes a new L2 table: a copy of the old one, which somebody else has too, or nothing.
func (i *Image) fillTable(t *blockcore.Task, run run, old format.Host) error {
	if old == 0 && run.blank { // but the file has to be there, or a check finds that the entry leads out of it
		return i.reachHost(t, run.host+format.Host(i.g.ClusterBytes()))
	}
	buf := t.Buffers().Get(int(i.l2.pieceBytes))
	defer t.Buffers().Put(buf)
	clear(buf)
	for done := format.Host(0); int64(done) < i.g.ClusterBytes(); done += format.Host(len(buf)) {
		if old != 0 {
			if err := i.copyPiece(t, buf, old+done); err != nil {
				return err
			}
		}
		if err := i.writeMeta(t, buf, run.host+done, metaNone); err != nil {
			return err
		}
	}
	return nil
}

// copyPiece fills buf with a piece of an L2 table that nobody changes. In memory it may be newer than in the file, when a commit has failed.
func (i *Image) copyPiece(t *blockcore.Task, buf []byte, at format.Host) error {
	if piece := i.l2.peek(at); piece != nil {
		copy(buf, piece.bytes)
		return nil
	}
	return readHost(t, i.file.Load(), buf, at)
}
