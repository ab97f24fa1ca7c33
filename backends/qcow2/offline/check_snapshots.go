package offline

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// snapshotExtraMin is how much extra data a snapshot of version 3 has to have: the sizes of the VM state and of the disk.
const snapshotExtraMin = 16

// snapshotTable reads the snapshots and looks at the form of the table. With RepairAll it takes what is too much for us, and leaves that
// out when the table is written anew.
func (c *check) snapshotTable() error {
	if c.header.Snapshots > 0 && c.g.InCluster(c.header.SnapshotsOffset) != 0 || c.header.SnapshotsOffset < 0 {
		return c.refuseSnapshots(syscall.EINVAL, "ERROR snapshot table offset invalid", "")
	}
	if over := int64(c.header.Snapshots) - format.SnapshotsMax; over > 0 {
		if c.Repair != RepairAll {
			return c.refuseSnapshots(syscall.EFBIG, "ERROR snapshot table too large",
				fmt.Sprintf("You can force-remove all %d overhanging snapshots with qemu-img check -r all", over))
		}
		c.say("Discarding %d overhanging snapshots", over)
		c.snapshotsWrong += over
		c.header.Snapshots = format.SnapshotsMax
	}
	parse := func(p []byte, whole bool) ([]format.Snapshot, int, error) {
		return format.ParseAnySnapshots(p, c.header, whole)
	}
	if err := c.parseSnapshots(parse); err != nil {
		return c.refuseSnapshots(syscall.EINVAL, "ERROR failed to read the snapshot table: "+err.Error(), "")
	}
	for i := range c.snapshots {
		if err := c.snapshotForm(i, &c.snapshots[i]); err != nil {
			return err
		}
	}
	if lost := int64(c.header.Snapshots) - int64(len(c.snapshots)); lost > 0 {
		c.say("Discarding %d snapshots behind one that is too long", lost)
		c.snapshotsWrong += lost
	}
	c.report.Corruptions += c.snapshotsWrong
	return nil
}

// snapshotForm looks at the extra data of a snapshot.
func (c *check) snapshotForm(i int, s *format.Snapshot) error {
	switch {
	case s.ExtraBytes > format.SnapshotExtraMax && c.Repair != RepairAll:
		return c.refuseSnapshots(syscall.EFBIG, fmt.Sprintf("ERROR failed to read the snapshot table: Too much extra metadata in snapshot table entry %d", i),
			"You can force-remove this extra metadata with qemu-img check -r all")
	case s.ExtraBytes > format.SnapshotExtraMax:
		c.say("Discarding too much extra metadata in snapshot table entry %d (%d > %d)", i, s.ExtraBytes, format.SnapshotExtraMax)
		s.Unknown = nil
		c.snapshotsWrong++
	case c.header.Version >= 3 && s.ExtraBytes < snapshotExtraMin:
		c.say("%s snapshot table entry %d is incomplete", c.wordFor(RepairAll), i)
		c.snapshotsWrong++
	}
	return nil
}

func (c *check) refuseSnapshots(errno syscall.Errno, text, hint string) error {
	c.say("%s", text)
	if hint != "" {
		c.say("%s", hint)
	}
	return errno
}

// repairSnapshots writes a table that was wrong anew. It comes after the refcounts, which have to be good for it.
func (c *check) repairSnapshots() error {
	if c.snapshotsWrong == 0 || c.Repair != RepairAll || c.report.CheckErrors > 0 {
		return nil
	}
	err := c.writeSnapshots(c.snapshots)
	if errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("ERROR failed to update snapshot table: %w", err)
	}
	if err == nil {
		c.report.Corruptions -= c.snapshotsWrong
		c.report.CorruptionsFixed += c.snapshotsWrong
	}
	return err
}
