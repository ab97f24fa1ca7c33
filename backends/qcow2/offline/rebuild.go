package offline

import (
	"encoding/binary"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// rebuilding puts new refcount structures where nothing is.
type rebuilding struct {
	*check
	free   int64                 // nothing before this cluster is free
	blocks map[int64]format.Host // by number
}

// rebuildAndCompare builds new refcount structures, turns to them, and gives the old ones back.
func (c *check) rebuildAndCompare() error {
	before := c.report
	c.say("Rebuilding refcount structure")
	r := &rebuilding{check: c, blocks: map[int64]format.Host{}}
	if err := r.build(); err != nil {
		return err
	}
	c.rebuild, c.report.Leaks, c.report.CheckErrors = false, 0, 0
	c.report.AllocatedClusters, c.report.FragmentedClusters, c.report.CompressedClusters = 0, 0, 0
	c.work = work{}
	c.report.Corruptions, c.misplaced = c.snapshotsWrong, 0
	if err := c.references(false); err != nil {
		return err
	}
	counted := c.report
	if err := c.compare(RepairLeaks); err != nil {
		return err
	}
	end := c.report.ImageEndOffset
	c.report = counted
	c.report.ImageEndOffset = end
	c.report.CorruptionsFixed = before.CorruptionsFixed + max(0, before.Corruptions-c.report.Corruptions)
	c.report.LeaksFixed = before.LeaksFixed + max(0, before.Leaks-c.report.Leaks)
	return nil
}

// build writes blocks and table, and only then the place of the table into the header.
func (r *rebuilding) build() error {
	r.Image.forgetBlocks()
	r.placeBlocks()
	table, tableAt, err := r.placeTable()
	if err != nil {
		return err
	}
	if err := r.writeBlocks(); err != nil {
		return err
	}
	if _, err := r.file.WriteAt(table, int64(tableAt)); err != nil {
		return err
	}
	r.refTable, r.Image.free = table, 0
	if err := r.setRefTablePlace(tableAt, int64(len(table))>>r.g.ClusterBits); err != nil {
		return err
	}
	r.fileBytes, err = r.file.Size()
	return err
}

// placeBlocks finds a cluster for each block that is needed. A block is counted as well, and may need another one for its own count.
func (r *rebuilding) placeBlocks() {
	for placed := true; placed; {
		placed = false
		for _, block := range r.found.blocks(r.g.RefBlockBits()) {
			if _, has := r.blocks[block]; !has {
				r.blocks[block] = r.g.Cluster(r.take(1))
				placed = true
			}
		}
	}
}

// placeTable finds clusters for the table, in one piece. Its own counts may need blocks, which may make it longer.
func (r *rebuilding) placeTable() ([]byte, format.Host, error) {
	for {
		highest := int64(0)
		for block := range r.blocks {
			highest = max(highest, block)
		}
		clusters := r.g.Clusters((highest + 1) * format.EntryBytes)
		if clusters > format.RefTableBytesMax>>r.g.ClusterBits {
			return nil, 0, syscall.EFBIG
		}
		first := r.take(clusters)
		r.placeBlocks()
		grown := false
		for block := range r.blocks {
			grown = grown || block >= clusters<<r.g.ClusterBits/format.EntryBytes
		}
		if grown {
			r.forget(first, clusters)
			continue
		}
		table := make([]byte, clusters<<r.g.ClusterBits)
		for block, at := range r.blocks {
			format.SetEntry(table, int(block), uint64(at))
		}
		return table, r.g.Cluster(first), nil
	}
}

// forget takes back a place that did not do. The clusters are not used again: what was counted for them may have become a block.
func (r *rebuilding) forget(first, clusters int64) {
	r.free = max(r.free, first+clusters)
	for n := first; n < first+clusters; n++ {
		*r.found.at(n, true) = 0
	}
}

func (r *rebuilding) take(clusters int64) int64 {
	first := r.find(clusters)
	for n := first; n < first+clusters; n++ {
		r.found.add(n, 1)
	}
	r.free = first + clusters
	return first
}

// find finds clusters that are free, in one piece.
func (r *rebuilding) find(clusters int64) int64 {
	run := int64(0)
	for n := r.free; ; n++ {
		if r.found.of(n) != 0 {
			run = 0
			continue
		}
		if run++; run == clusters {
			return n + 1 - clusters
		}
	}
}

func (r *rebuilding) writeBlocks() error {
	data := make([]byte, r.g.ClusterBytes())
	for block, at := range r.blocks {
		clear(data)
		from := block << r.g.RefBlockBits()
		for n := range r.g.RefBlockEntries() {
			if count := r.found.of(from + n); count != 0 {
				r.g.SetRefcount(data, n, count)
			}
		}
		if _, err := r.file.WriteAt(data, int64(at)); err != nil {
			return err
		}
	}
	return nil
}

// markSound clears the bits that say that the image is not to be trusted.
func (im *Image) markSound() error {
	return im.dropFeatures(format.IncompatibleDirty | format.IncompatibleCorrupt)
}

// MarkCounted has the header not say any more that refcounts are in doubt.
func (im *Image) MarkCounted() error { return im.dropFeatures(format.IncompatibleDirty) }

func (im *Image) dropFeatures(bad uint64) error {
	if im.header.Version < 3 || im.header.Incompatible&bad == 0 {
		return nil
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	im.header.Incompatible &^= bad
	if _, err := im.file.WriteAt(binary.BigEndian.AppendUint64(nil, im.header.Incompatible), headerIncompatibleAt); err != nil {
		return err
	}
	return im.file.Sync()
}

// headerIncompatibleAt is where in the header the incompatible features stand.
const headerIncompatibleAt = 72
