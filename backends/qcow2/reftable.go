package qcow2

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// ownBlock returns the refcount block of an index, and makes it if there is none.
func (i *Image) ownBlock(t *blockcore.Task, index int) (*table, error) {
	block, err := i.refBlock(t, index)
	if block != nil || err != nil {
		return block, err
	}
	i.refs.creating.enter(t)
	defer i.refs.creating.leave()
	if index >= len(i.refs.table) {
		if err := i.growRefTable(t, index); err != nil {
			return nil, err
		}
	}
	if format.RefTableEntry(i.refs.table[index]).Offset() == 0 { // whatever bits are reserved
		if err := i.newBlock(t, index); err != nil {
			return nil, err
		}
	}
	return i.refBlock(t, index)
}

// newBlock makes a refcount block, in the first cluster of those that it counts: all of them are free. On disk it is there with the next commit, before
// the refcount table refers to it.
func (i *Image) newBlock(t *blockcore.Task, index int) error {
	cluster := int64(index) << i.g.RefBlockBits()
	at := i.g.Cluster(cluster)
	if cluster == 0 {
		return i.corrupt(t, true, 0, i.g.ClusterBytes(), "Preventing invalid allocation of refcount block at offset 0")
	}
	if at < 0 || at >= format.HostMax {
		return fmt.Errorf("qcow2: the image has no more clusters: %w", syscall.EFBIG)
	}
	if err := i.checkOverlap(t, at, i.g.ClusterBytes(), metaNone); err != nil {
		return err
	}
	if err := i.refs.blocks.room(t); err != nil {
		return err
	}
	block := i.refs.blocks.insert(t, at)
	clear(block.bytes)
	i.g.SetRefcount(block.bytes, 0, 1)
	i.refs.blocks.soil(block)
	i.refs.fresh = true
	i.refs.table[index] = uint64(at)
	i.refs.dirty[index/entriesPerSector] = struct{}{}
	i.refs.blank = max(i.refs.blank, cluster+1)
	i.metas.add(cluster, metaRefBlock)
	return nil
}

// tablePlan is where a longer refcount table goes: behind all clusters that the old one counts, behind the blocks that count it and themselves.
//
//	old clusters | blocks | table | ...
//	0            first
type tablePlan struct {
	first, blocks, clusters int64
	entries                 int64
}

func (i *Image) planTable(index int) (tablePlan, error) {
	perBlock := i.g.RefBlockEntries()
	old := int64(len(i.refs.table))
	p := tablePlan{first: old << i.g.RefBlockBits()}
	if old > 0 && p.first>>i.g.RefBlockBits() != old || p.first >= i.g.Index(format.HostMax) {
		return p, fmt.Errorf("qcow2: the image has no more clusters: %w", syscall.EFBIG)
	}
	p.entries = max(old+old/2, int64(index)+1)
	for {
		p.clusters = i.g.Clusters(p.entries * format.EntryBytes)
		p.entries = p.clusters * i.g.ClusterBytes() / format.EntryBytes
		p.blocks = (p.clusters + perBlock - 1) / perBlock
		for p.blocks*perBlock < p.blocks+p.clusters {
			p.blocks++
		}
		if p.entries*format.EntryBytes > format.RefTableBytesMax {
			return p, fmt.Errorf("qcow2: the refcount table cannot become longer: %w", syscall.EFBIG)
		}
		if need := old + p.blocks; need <= p.entries {
			return p, nil
		}
		p.entries = old + p.blocks
	}
}

// growRefTable moves the refcount table to a place where it can be longer. On disk first: blocks and table, then the header that refers to it.
func (i *Image) growRefTable(t *blockcore.Task, index int) error {
	if err := i.writable(); err != nil {
		return err
	}
	if err := i.confirmHeader(t); err != nil {
		return err // it may refer to what is written now
	}
	plan, err := i.planTable(index)
	if err != nil {
		return err
	}
	table := make([]uint64, plan.entries)
	copy(table, i.refs.table)
	if err := i.writeNewBlocks(t, plan, table); err != nil {
		return err
	}
	// Blocks that only the table in memory refers to, so far.
	if err := i.writeBlocks(t); err != nil {
		return err
	}
	at := i.g.Cluster(plan.first + plan.blocks)
	if err := i.writeEntries(t, table, at); err != nil {
		return err
	}
	if err := i.file.Load().Flush(t); err != nil {
		return err
	}
	err = i.changeHeader(t, func(h *format.Header) { h.RefTableOffset, h.RefTableClusters = at, uint32(plan.clusters) })
	if err != nil {
		return err // and clusters of the new table are given to nobody: those before it do not reach so far
	}
	i.adoptTable(plan, table, at)
	return nil
}

// adoptTable switches to a table that the header on disk refers to.
func (i *Image) adoptTable(plan tablePlan, table []uint64, at format.Host) {
	old, oldClusters := i.g.Index(i.refs.at), i.g.Clusters(int64(len(i.refs.table))*format.EntryBytes)
	for b := range plan.blocks {
		i.metas.add(plan.first+b, metaRefBlock)
	}
	i.metas.set(metaRefTable, i.g.Index(at), i.g.Index(at)+plan.clusters)
	i.refs.table, i.refs.at = table, at
	i.refs.blank = max(i.refs.blank, plan.first+plan.blocks+plan.clusters)
	if oldClusters > 0 && old > 0 {
		i.free(freed{first: old, count: oldClusters, kind: freeOther})
	}
}

// writeNewBlocks writes the blocks that count themselves and a longer table, and enters them in it.
func (i *Image) writeNewBlocks(t *blockcore.Task, plan tablePlan, table []uint64) error {
	block := t.Buffers().Get(int(i.g.ClusterBytes()))
	defer t.Buffers().Put(block)
	used := plan.blocks + plan.clusters
	for b := range plan.blocks {
		clear(block)
		for k := range min(used-b*i.g.RefBlockEntries(), i.g.RefBlockEntries()) {
			i.g.SetRefcount(block, k, 1)
		}
		at := i.g.Cluster(plan.first + b)
		i.refs.blocks.forget(t, at, i.g.ClusterBytes())
		if err := i.writeMeta(t, block, at, metaNone); err != nil {
			return err
		}
		table[(plan.first>>i.g.RefBlockBits())+b] = uint64(at)
	}
	return nil
}

// writeEntries writes a table of 64-bit numbers that nothing refers to yet. Its last cluster is filled up with zeroes.
func (i *Image) writeEntries(t *blockcore.Task, entries []uint64, at format.Host) error {
	return i.writeEntriesIn(t, entries, at, i.g.Clusters(int64(len(entries))*format.EntryBytes)<<i.g.ClusterBits)
}

// writeEntriesIn is writeEntries for so many bytes.
func (i *Image) writeEntriesIn(t *blockcore.Task, entries []uint64, at format.Host, bytes int64) error {
	buf := t.Buffers().Get(int(min(bytes, pieceBytes)))
	defer t.Buffers().Put(buf)
	for done := int64(0); done < bytes; done += int64(len(buf)) {
		piece := buf[:min(int64(len(buf)), bytes-done)]
		clear(piece)
		first := int(done / format.EntryBytes)
		for k := 0; k < len(piece)/format.EntryBytes && first+k < len(entries); k++ {
			format.SetEntry(piece, k, entries[first+k])
		}
		if err := i.writeMeta(t, piece, at+format.Host(done), metaNone); err != nil {
			return err
		}
	}
	return nil
}
