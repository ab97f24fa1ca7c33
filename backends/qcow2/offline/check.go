package offline

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// check is one walk over an image:
//
//	snapshot table    its entries, each alone
//	references        all that refers to clusters is counted: header, L1 and L2 tables, snapshots, bitmaps, refcounts
//	comparison        the image's refcounts against what was counted
//	COPIED flags      against the refcounts
//
// A repair changes an entry where it finds it, unless the refcount structures themselves are damaged: these are built anew, from
// what was counted, beside the old ones (rebuild.go).
type check struct {
	*Image
	CheckOptions
	report Report
	found  *counts
	// rebuild is set when the image's refcounts cannot be changed where they are.
	rebuild bool
	// snapshotsWrong is how many things in the form of the snapshot table are wrong.
	snapshotsWrong int64
	// lost are the bitmaps whose tables are not in the file, by their places in the directory.
	lost []int
	// spoiled are those in whose tables entries lead nowhere.
	spoiled []format.Bitmap
	// crowded: more was found to refer to a cluster than can be counted.
	crowded bool
	// told is set once the first block that cannot be read has been spoken of.
	told  bool
	work  work
	table []byte // a cluster, for L2 and bitmap tables
}

// work is how much of the walk is done, in tables.
type work struct{ done, total int64 }

// Check looks an image over that was opened with format.ForCheck, and repairs what it is told to. A problem of the image is in the
// report; an error means that the check could not be finished.
func (im *Image) Check(o CheckOptions) (Report, error) {
	c := &check{Image: im, CheckOptions: o, table: make([]byte, im.g.ClusterBytes())}
	im.misplaced = 0
	err := c.run()
	if err == nil {
		err = im.writeBlock()
	}
	if err == nil && o.Repair != RepairNothing && c.report.CheckErrors == 0 && c.report.Corruptions == 0 {
		err = im.markSound()
	}
	return c.report, err
}

// Misplaced is how many of the corruptions that the last check has left are entries of data between two clusters. Whoever is about to use one sees that; all
// else that the image refers to is counted nevertheless.
func (im *Image) Misplaced() int64 { return im.misplaced }

func (c *check) run() error {
	c.report.TotalClusters = c.clustersOf(c.header.SizeBytes)
	if c.g.Clusters(c.fileBytes) > math.MaxInt32 {
		c.report.CheckErrors++ // QEMU's limit: a check of so much would not end
		return fmt.Errorf("the file has more than %d clusters: %w", math.MaxInt32, syscall.EFBIG)
	}
	if err := c.snapshotTable(); err != nil {
		return err
	}
	if err := c.references(c.Repair == RepairAll); err != nil {
		return err
	}
	if err := c.settleCounts(); err != nil {
		return err
	}
	if err := c.repairSnapshots(); err != nil {
		return err
	}
	if err := c.repairBitmaps(); err != nil {
		return err
	}
	return c.copiedFlags()
}

func (c *check) clustersOf(sizeBytes uint64) int64 {
	return int64(sizeBytes>>c.g.ClusterBits) + b2i(sizeBytes&uint64(c.g.ClusterBytes()-1) != 0)
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// settleCounts compares the refcounts, and repairs them if that was asked for.
func (c *check) settleCounts() error {
	before := c.report
	if err := c.compare(RepairNothing); err != nil {
		return err
	}
	switch {
	case c.rebuild && c.Repair == RepairAll:
		return c.rebuildAndCompare()
	case c.Repair == RepairNothing:
		return nil
	case c.rebuild:
		c.say("ERROR need to rebuild refcount structures")
		return syscall.EIO
	case c.report.Leaks == 0 && c.report.Corruptions == 0:
		return nil
	}
	c.report = before // what was counted is counted again, now with what becomes of it
	return c.compare(c.Repair)
}

func (c *check) say(text string, args ...any) {
	if c.Say != nil {
		c.Say(fmt.Sprintf(text, args...))
	}
}

// wordFor is how a line begins about something that a kind of repair puts right.
func (c *check) wordFor(repair Repair) string {
	if c.Repair >= repair {
		return "Repairing"
	}
	return "ERROR"
}

// hex is a number as C's %#x prints it: zero has no 0x.
func hex(n uint64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

// corrupt reports a corruption that stays.
func (c *check) corrupt(text string, args ...any) {
	c.report.Corruptions++
	c.say("ERROR "+text, args...)
}

// step counts a table that was done.
func (c *check) step() error {
	c.work.done++
	if c.Progress == nil {
		return nil
	}
	return c.Progress(min(c.work.done, c.work.total), c.work.total)
}

// refer counts references to a part of the file.
func (c *check) refer(at format.Host, lengthBytes int64, times uint64) {
	if lengthBytes <= 0 {
		return
	}
	if at < 0 || int64(at) > math.MaxInt64-lengthBytes || int64(at)+lengthBytes-c.fileBytes >= c.g.ClusterBytes() {
		c.report.Corruptions += int64(times)
		c.say("ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x%x size 0x%x", uint64(at), lengthBytes)
		return
	}
	for n := c.g.Index(at); n <= c.g.Index(at+format.Host(lengthBytes-1)); n++ {
		if !c.found.add(n, times) {
			c.report.Corruptions++
			c.crowded = true
			c.say("ERROR: overflow cluster offset=0x%x", uint64(c.g.Cluster(n)))
			c.say("Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing")
		}
	}
}

// references counts all references that there are in the image.
func (c *check) references(fix bool) error {
	c.found = newCounts(c.g.Clusters(c.fileBytes), c.g.RefcountMax())
	c.refer(0, c.g.ClusterBytes(), 1)
	if err := c.mappings(fix); err != nil {
		return err
	}
	c.refer(c.header.SnapshotsOffset, c.snapshotBytes, 1)
	if e := c.header.Extension(format.ExtensionCrypt); e != nil && len(e.Data) == 16 {
		c.refer(format.Host(format.Entry(e.Data, 0)), int64(format.Entry(e.Data, 1)), 1)
	}
	if err := c.bitmaps(fix); err != nil {
		return err
	}
	c.refer(c.header.RefTableOffset, int64(c.header.RefTableClusters)<<c.g.ClusterBits, 1)
	c.blocks()
	return c.markSpoiled()
}

// errAsQEMU is QEMU's text for what went wrong below.
func errAsQEMU(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	switch errno {
	case syscall.EIO:
		return "Input/output error"
	}
	return errno.Error()
}
