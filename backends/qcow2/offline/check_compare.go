package offline

import (
	"errors"
	"slices"

	"nbd-dataplane/backends/qcow2/format"
)

// blocks counts the references of the refcount table.
func (c *check) blocks() {
	for i := range len(c.refTable) / format.EntryBytes {
		e := format.RefTableEntry(format.Entry(c.refTable, i))
		at := e.Offset()
		switch {
		case e.Reserved() != 0:
			c.corrupt("refcount table entry %d has reserved bits set", i)
			c.rebuild = true
		case at == 0:
		case c.g.InCluster(at) != 0:
			c.corrupt("refcount block %d is not cluster aligned; refcount table entry corrupted", i)
			c.rebuild = true
		case at < 0 || c.g.Index(at) >= c.g.Clusters(c.fileBytes):
			// QEMU's repair makes the file longer, so that there is a block; we build the table anew without it.
			c.report.Corruptions++
			c.say("%s refcount block %d is outside image", c.wordFor(RepairAll), i)
			c.rebuild = c.rebuild || c.Repair == RepairAll
		default:
			c.refer(at, c.g.ClusterBytes(), 1)
			if n := c.found.of(c.g.Index(at)); n != 1 {
				c.corrupt("refcount block %d refcount=%d", i, n)
				c.rebuild = true
			}
		}
	}
}

// compare compares the image's refcounts with what was counted. With a repair, counts that differ are put right.
func (c *check) compare(repair Repair) error {
	var highest int64
	blocks := c.blocksToCompare()
	c.expect(c.refBlocks(slices.Values(blocks)))
	for _, block := range blocks {
		from := block << c.g.RefBlockBits()
		for cluster := from; cluster < min(from+c.g.RefBlockEntries(), c.found.clusters); cluster++ {
			has, err := c.refcount(cluster)
			if err != nil {
				if err := c.unreadable(cluster, err); err != nil {
					return err
				}
				continue
			}
			counted := c.found.of(cluster)
			if has != 0 || counted != 0 {
				highest = cluster
			}
			if has != counted {
				if err := c.differs(cluster, has, counted, repair); err != nil {
					return err
				}
			}
		}
	}
	c.report.ImageEndOffset = (highest + 1) << c.g.ClusterBits
	return nil
}

// blocksToCompare are the refcount blocks of the file that the image has, or ought to have. All others are zeroes on both sides.
func (c *check) blocksToCompare() []int64 {
	all := c.found.blocks(c.g.RefBlockBits())
	for i := range len(c.refTable) / format.EntryBytes {
		if format.Entry(c.refTable, i) != 0 && int64(i)<<c.g.RefBlockBits() < c.found.clusters {
			all = append(all, int64(i))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// unreadable reports a refcount that cannot be read.
func (c *check) unreadable(cluster int64, err error) error {
	var unaligned *UnalignedBlock
	if errors.As(err, &unaligned) && !c.told {
		c.told = true
		c.say("qcow2: Image is corrupt: Refblock offset %s unaligned (reftable index: %s); further non-fatal corruption events will be suppressed",
			hex(uint64(unaligned.Offset)), hex(uint64(unaligned.Index)))
	}
	c.say("Can't get refcount for cluster %d: %s", cluster, errAsQEMU(err))
	c.report.CheckErrors++
	return nil
}

func (c *check) differs(cluster int64, has, counted uint64, repair Repair) error {
	leak := has > counted
	fixed := leak && repair != RepairNothing || !leak && repair == RepairAll
	word := "Leaked"
	switch {
	case has == 0:
		c.rebuild, fixed = true, false
		word = "ERROR"
	case fixed:
		word = "Repairing"
	case !leak:
		word = "ERROR"
	}
	c.say("%s cluster %d refcount=%d reference=%d", word, cluster, has, counted)
	if fixed {
		if err := c.setRefcount(cluster, counted); err != nil {
			return err
		}
	}
	switch {
	case fixed && leak:
		c.report.LeaksFixed++
	case fixed:
		c.report.CorruptionsFixed++
	case leak:
		c.report.Leaks++
	default:
		c.report.Corruptions++
	}
	return nil
}
