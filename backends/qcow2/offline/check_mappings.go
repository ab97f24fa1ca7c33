package offline

import (
	"fmt"
	"slices"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// l2Uses is how often an L2 table is referred to. A table is read once, however many snapshots share it: a table that everything
// refers to would keep a check busy for as long as somebody wanted.
type l2Uses struct {
	at      format.Host
	times   uint64 // by all L1 tables
	active  uint64 // by the active one
	reached bool
}

// l1BytesFactor bounds how much is read of L1 tables of snapshots: whole snapshots do not share theirs, so together they cannot be larger
// than the file.
const l1BytesFactor = 2

// mappings counts the references of all L1 tables and of what they refer to.
func (c *check) mappings(fix bool) error {
	var tables []l2Uses
	c.refer(c.header.L1Offset, int64(len(c.l1)), 1)
	tables = c.addL1(tables, c.l1, true)
	left := c.fileBytes*l1BytesFactor + c.g.ClusterBytes()
	for i := range c.snapshots {
		s := &c.snapshots[i]
		if c.misplacedL1(s) {
			continue
		}
		lengthBytes := int64(s.L1Entries) * format.EntryBytes
		c.refer(s.L1Offset, lengthBytes, 1)
		inFile := min(lengthBytes, max(0, c.fileBytes-int64(s.L1Offset))) // behind it are zeroes; that was said
		if left -= inFile; left < 0 {
			return fmt.Errorf("snapshot %s (%s): the L1 tables of the snapshots overlap: %w", s.ID, s.Name, syscall.EFBIG)
		}
		if s.L1Offset < 0 {
			c.say("ERROR: I/O error in check_refcounts_l1")
			return syscall.EIO
		}
		l1, err := c.readTable(s.L1Offset, inFile&^(format.EntryBytes-1))
		if err != nil {
			return err
		}
		tables = c.addL1(tables, l1, false)
	}
	c.work.total = int64(len(tables))
	c.expect(func(yield func(Part) bool) {
		for _, t := range tables {
			if !yield(Part{int64(t.at), c.g.ClusterBytes()}) {
				return
			}
		}
	})
	for _, t := range tables {
		if err := c.l2(t, fix); err != nil {
			return err
		}
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

// misplacedL1 reports a snapshot whose L1 table cannot be.
func (c *check) misplacedL1(s *format.Snapshot) bool {
	switch {
	case c.g.InCluster(s.L1Offset) != 0:
		c.corrupt("snapshot %s (%s) l1_offset=%#x: L1 table is not cluster aligned; snapshot table entry corrupted", s.ID, s.Name, uint64(s.L1Offset))
	case int64(s.L1Entries)*format.EntryBytes > format.L1BytesMax:
		c.corrupt("snapshot %s (%s) l1_size=%#x: L1 table is too large; snapshot table entry corrupted", s.ID, s.Name, s.L1Entries)
	default:
		return false
	}
	return true
}

// addL1 adds the L2 tables that an L1 table refers to, and keeps them in order.
func (c *check) addL1(tables []l2Uses, l1 []byte, active bool) []l2Uses {
	old := len(tables)
	for i := range len(l1) / format.EntryBytes {
		e := format.L1Entry(format.Entry(l1, i))
		if e == 0 {
			continue
		}
		if e.Reserved() != 0 {
			c.corrupt("found L1 entry with reserved bits set: %x", uint64(e))
		}
		c.refer(e.Offset(), c.g.ClusterBytes(), 1)
		if c.g.InCluster(e.Offset()) != 0 {
			c.corrupt("l2_offset=%x: Table is not cluster aligned; L1 entry corrupted", uint64(e.Offset()))
		}
		if int64(e.Offset()) < c.fileBytes {
			tables = append(tables, l2Uses{at: e.Offset(), times: 1, active: uint64(b2i(active))})
		}
	}
	if len(tables) > old {
		slices.SortFunc(tables, func(a, b l2Uses) int { return int((a.at - b.at) >> 9) })
		tables = mergeUses(tables)
	}
	return tables
}

func mergeUses(sorted []l2Uses) []l2Uses {
	merged := sorted[:1]
	for _, t := range sorted[1:] {
		last := &merged[len(merged)-1]
		if t.at != last.at {
			merged = append(merged, t)
			continue
		}
		last.times += t.times
		last.active += t.active
	}
	return merged
}

// l2 counts the references of one L2 table.
func (c *check) l2(t l2Uses, fix bool) error {
	if err := readAt(c.file, c.table, int64(t.at)); err != nil {
		c.say("ERROR: I/O error in check_refcounts_l2")
		return err
	}
	w := l2Walk{check: c, uses: t, fix: fix}
	for i := range c.g.L2Entries() {
		if err := w.entry(i); err != nil {
			return err
		}
	}
	return nil
}

// l2Walk is the walk over the entries of one L2 table.
type l2Walk struct {
	*check
	uses l2Uses
	fix  bool
	next format.Host // where the next cluster would be if the disk were in one piece; 0 = none was seen
}

func (w *l2Walk) dataFile() bool { return w.header.Has(format.IncompatibleDataFile) }

// corruptTable is corrupt for something that each use of the table has.
func (w *l2Walk) corruptTable(text string, args ...any) {
	w.report.Corruptions += int64(w.uses.times)
	w.say(text, args...)
}

func (w *l2Walk) entry(i int) error {
	e := w.g.L2Entry(w.table, i)
	if e == (format.L2Entry{}) {
		return nil
	}
	kind := w.g.Kind(e, w.dataFile())
	if kind != format.Compressed && w.reserved(e) {
		w.corruptTable("ERROR found l2 entry with reserved bits set: %x", e.Descriptor)
	}
	switch kind {
	case format.Compressed:
		w.compressed(i, e)
	case format.ZeroAlloc, format.Normal:
		return w.allocated(i, e)
	case format.Unallocated:
		if e.Bits&format.AllocatedBits != 0 {
			w.corruptTable("ERROR: Unallocated cluster has non-zero subcluster allocation map")
		}
	}
	return nil
}

// reserved leaves the zero flag out: it is a flag of version 3, and of entries without subclusters, but QEMU does not mind it elsewhere.
func (w *l2Walk) reserved(e format.L2Entry) bool {
	return e.Reserved() != 0
}

func (w *l2Walk) compressed(i int, e format.L2Entry) {
	if e.Copied() {
		at, _ := w.g.CompressedRange(e)
		w.corruptTable("ERROR: coffset=0x%x: copied flag must never be set for compressed clusters", uint64(at))
		e.Descriptor &^= format.FlagCopied
	}
	switch {
	case w.dataFile():
		w.corruptTable("ERROR compressed cluster %d with data file, entry=0x%x", i, e.Descriptor)
		return
	case e.Bits != 0:
		w.corruptTable("ERROR compressed cluster %d with non-zero subcluster allocation bitmap, entry=0x%x", i, e.Descriptor)
		return
	}
	at, lengthBytes := w.g.CompressedRange(e)
	w.refer(at, lengthBytes, w.uses.times)
	w.report.AllocatedClusters += int64(w.uses.active)
	w.report.CompressedClusters += int64(w.uses.active)
	w.report.FragmentedClusters += int64(w.uses.active) // compressed ones never lie where a plain one would
}

func (w *l2Walk) allocated(i int, e format.L2Entry) error {
	at := e.Offset()
	if e.Bits&format.AllocatedBits&(e.Bits>>format.SubclustersPerCluster) != 0 {
		w.corruptTable("ERROR offset=%x: Allocated cluster has corrupted subcluster allocation bitmap", uint64(at))
	}
	if w.g.InCluster(at) != 0 {
		gone, err := w.unaligned(i, e)
		if gone || err != nil {
			return err
		}
	}
	if w.uses.active > 0 {
		w.report.AllocatedClusters += int64(w.uses.active)
		if w.next != 0 && at != w.next {
			w.report.FragmentedClusters += int64(w.uses.active)
		}
		w.next = at + format.Host(w.g.ClusterBytes())
	}
	if !w.dataFile() {
		w.refer(at, w.g.ClusterBytes(), w.uses.times)
	}
	return nil
}

// unaligned reports a cluster that cannot be where its entry says. One without data can be made a zero cluster without a place; then it
// is gone.
func (w *l2Walk) unaligned(i int, e format.L2Entry) (gone bool, err error) {
	hasData := e.Descriptor&format.FlagZero == 0
	if w.g.Extended {
		hasData = e.Bits&format.AllocatedBits != 0
	}
	switch {
	case hasData:
		w.misplaced += int64(w.uses.times)
		w.corruptTable("ERROR offset=%x: Data cluster is not properly aligned; L2 entry corrupted.", uint64(e.Offset()))
		return false, nil
	case !w.fix:
		w.corruptTable("ERROR offset=%x: Preallocated cluster is not properly aligned; L2 entry corrupted.", uint64(e.Offset()))
		return false, nil
	}
	w.say("Repairing offset=%x: Preallocated cluster is not properly aligned; L2 entry corrupted.", uint64(e.Offset()))
	e.Descriptor = format.FlagZero
	if w.g.Extended {
		e.Descriptor, e.Bits = 0, e.Bits&format.ZeroBits
	}
	w.g.SetL2Entry(w.table, i, e)
	w.report.CorruptionsFixed++
	size := w.g.L2EntryBytes()
	_, err = w.file.WriteAt(w.table[i*size:(i+1)*size], int64(w.uses.at)+int64(i*size))
	return true, err
}
