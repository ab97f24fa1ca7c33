package offline

import "nbd-dataplane/backends/qcow2/format"

// copiedFlags compares the COPIED flags of the active tables with the refcounts.
func (c *check) copiedFlags() error {
	flips := c.flips()
	c.expect(c.l2Tables(c.l1))
	for i := range len(c.l1) / format.EntryBytes {
		e := format.L1Entry(format.Entry(c.l1, i))
		if e.Offset() == 0 {
			continue
		}
		n, err := c.refcount(c.g.Index(e.Offset()))
		if err != nil {
			continue // which was said
		}
		if (n == 1) != e.Copied() {
			if err := c.copiedL1(i, e, n, flips); err != nil {
				return err
			}
		}
		if int64(e.Offset()) >= c.fileBytes {
			continue
		}
		if err := c.copiedL2(e.Offset(), flips && c.mayFlip(e.Offset())); err != nil {
			return err
		}
	}
	return nil
}

// flips says whether flags are to be put right. With RepairLeaks they are if nothing else is wrong, as in QEMU: a wrong flag alone makes no
// more than a copy too many, or one too few where a leak was a reference.
func (c *check) flips() bool {
	return c.Repair == RepairAll || c.Repair == RepairLeaks && c.report.Clean()
}

// mayFlip says whether the flags in a table are to be put right: not if anything but L1 tables refers to its cluster as well.
func (c *check) mayFlip(table format.Host) bool {
	return c.g.InCluster(table) == 0 && !c.overlaps(table, c.g.ClusterBytes())
}

func (c *check) copiedL1(i int, e format.L1Entry, n uint64, flips bool) error {
	if !flips {
		c.corrupt("OFLAG_COPIED L2 cluster: l1_index=%d l1_entry=%x refcount=%d", i, uint64(e), n)
		return nil
	}
	c.say("Repairing OFLAG_COPIED L2 cluster: l1_index=%d l1_entry=%x refcount=%d", i, uint64(e), n)
	format.SetEntry(c.l1, i, flip(uint64(e)))
	at := i * format.EntryBytes
	_, err := c.file.WriteAt(c.l1[at:at+format.EntryBytes], int64(c.header.L1Offset)+int64(at))
	c.report.CorruptionsFixed++
	return err
}

func flip(entry uint64) uint64 { return entry ^ format.FlagCopied }

func (c *check) copiedL2(table format.Host, fix bool) error {
	if err := readAt(c.file, c.table, int64(table)); err != nil {
		return err
	}
	changed := int64(0)
	dataFile := c.header.Has(format.IncompatibleDataFile)
	for i := range c.g.L2Entries() {
		e := c.g.L2Entry(c.table, i)
		if e.Descriptor == 0 {
			continue
		}
		if kind := c.g.Kind(e, dataFile); kind != format.Normal && kind != format.ZeroAlloc {
			continue
		}
		n := uint64(1)
		if !dataFile {
			var err error
			if n, err = c.refcount(c.g.Index(e.Offset())); err != nil {
				continue
			}
		}
		if (n == 1) == e.Copied() {
			continue
		}
		if !fix {
			c.corrupt("OFLAG_COPIED data cluster: l2_entry=%x refcount=%d", e.Descriptor, n)
			continue
		}
		c.say("Repairing OFLAG_COPIED data cluster: l2_entry=%x refcount=%d", e.Descriptor, n)
		e.Descriptor = flip(e.Descriptor)
		c.g.SetL2Entry(c.table, i, e)
		changed++
	}
	if changed == 0 {
		return nil
	}
	c.report.CorruptionsFixed += changed
	_, err := c.file.WriteAt(c.table, int64(table))
	return err
}

// overlaps reports whether a part of the file belongs to the header, the refcount structures, or an L1 or snapshot table.
func (c *check) overlaps(at format.Host, lengthBytes int64) bool {
	meets := func(other format.Host, otherBytes int64) bool {
		return otherBytes > 0 && other < at+format.Host(lengthBytes) && at < other+format.Host(otherBytes)
	}
	cluster := c.g.ClusterBytes()
	if meets(0, cluster) || meets(c.header.L1Offset, int64(len(c.l1))) || meets(c.header.RefTableOffset, int64(len(c.refTable))) ||
		meets(c.header.SnapshotsOffset, c.snapshotBytes) {
		return true
	}
	for i := range c.snapshots {
		s := &c.snapshots[i]
		if s.Check(c.g) == nil && meets(s.L1Offset, int64(s.L1Entries)*format.EntryBytes) {
			return true
		}
	}
	for i := range len(c.refTable) / format.EntryBytes {
		if block := format.RefTableEntry(format.Entry(c.refTable, i)).Offset(); block != 0 && meets(block, cluster) {
			return true
		}
	}
	return false
}
