package qcow2

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// SnapshotName says which internal snapshot is meant: by its id, by its name, or by both; nil = not said.
type SnapshotName struct{ ID, Name *string }

// names reports whether s is meant.
func (n SnapshotName) names(s *format.Snapshot) bool {
	return (n.ID != nil || n.Name != nil) && (n.ID == nil || *n.ID == s.ID) && (n.Name == nil || *n.Name == s.Name)
}

// ErrNoSnapshot is returned where a snapshot is meant that is not there.
var ErrNoSnapshot = &format.Error{Errno: syscall.ENOENT, Text: "Can't find snapshot"}

// LoadSnapshot has the image show what a snapshot kept, until it is closed. The image must be read-only, and stays so. As in QEMU the size is the
// image's: what it has gained since reads as if it had never been written. On the loop, before the first request.
func (i *Image) LoadSnapshot(t *blockcore.Task, name SnapshotName) error {
	if !i.readOnly {
		return &format.Error{Errno: syscall.EINVAL, Text: "Device is not readonly"}
	}
	for k := range i.snapshots {
		s := &i.snapshots[k]
		if !name.names(s) {
			continue
		}
		if err := s.Check(i.g); err != nil {
			return err
		}
		entries, err := readEntries(t, i.file.Load(), s.L1Offset, int(s.L1Entries))
		if err != nil {
			return fmt.Errorf("Failed to read l1 table for snapshot: %w", err)
		}
		i.l1, i.shows = newL1Table(entries, s.L1Offset), true
		return nil
	}
	return ErrNoSnapshot
}
