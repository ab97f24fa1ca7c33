package offline

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"time"

	"nbd-dataplane/backends/qcow2/format"
)

// ErrNoSnapshot says that there is no snapshot of that name.
var ErrNoSnapshot = errors.New("snapshot not found")

// BeginChange makes an image that was opened with format.ForUse ready to be changed: features that we do not know and that a change would
// make untrue are cleared. An image that is damaged or was not closed is refused.
func (im *Image) BeginChange() error {
	switch {
	case im.header.Has(format.IncompatibleCorrupt):
		return &format.Error{Errno: syscall.EACCES, Text: "qcow2: Image is corrupt; cannot be opened read/write"}
	case im.header.Has(format.IncompatibleDirty):
		return &format.Error{Errno: syscall.EBUSY, Text: "qcow2: the image was not closed; 'image check -r all' repairs it"}
	case im.header.Crypt != format.CryptNone:
		return &format.Error{Errno: syscall.ENOTSUP, Text: "qcow2: encrypted images cannot be changed"}
	}
	unknown := im.header.Autoclear &^ format.AutoclearKnown
	if unknown == 0 {
		return nil
	}
	im.header.Autoclear &^= unknown
	return im.writeHeader()
}

// CreateSnapshot takes a snapshot of the disk as it is.
func (im *Image) CreateSnapshot(name string, when time.Time) error {
	switch {
	case im.header.Has(format.IncompatibleDataFile):
		return syscall.ENOTSUP
	case len(im.snapshots) >= format.SnapshotsMax:
		return syscall.EFBIG
	}
	before, clusters := slices.Clone(im.l1), im.g.Clusters(int64(len(im.l1)))
	first, err := im.allocate(clusters)
	if err != nil {
		return err
	}
	if err := im.retain(before, 1); err != nil {
		return errors.Join(err, im.release(im.g.Cluster(first), clusters), im.flush())
	}
	table, err := im.prepareSnapshot(format.Snapshot{
		L1Offset: im.g.Cluster(first), L1Entries: uint32(len(im.l1) / format.EntryBytes), ID: format.NextSnapshotID(im.snapshots), Name: name,
		Seconds: uint32(when.Unix()), Nanoseconds: uint32(when.Nanosecond()), DiskBytes: im.header.SizeBytes,
	})
	if err != nil {
		im.takeBack(before, first, clusters)
		return err
	}
	if err := im.turnToSnapshots(table); err != nil {
		return err
	}
	return im.flush()
}

// prepareSnapshot writes what the header is to lead to, when all is counted that the snapshot has.
func (im *Image) prepareSnapshot(s format.Snapshot) (snapshotTable, error) {
	if err := im.flush(); err != nil {
		return snapshotTable{}, err
	}
	if err := im.settleCopied(); err != nil {
		return snapshotTable{}, err
	}
	// The flags in the copy are clear, as those of the active table are now.
	copied := padded(im.l1, im.g.Clusters(int64(len(im.l1)))<<im.g.ClusterBits)
	if _, err := im.file.WriteAt(copied, int64(s.L1Offset)); err != nil {
		return snapshotTable{}, err
	}
	return im.newSnapshotTable(append(slices.Clone(im.snapshots), s))
}

// takeBack undoes what was done for a change that came to nothing: what an L1 table refers to was counted once more, and there were clusters for a copy.
// What cannot be undone is counts that are too high.
func (im *Image) takeBack(l1 []byte, first, clusters int64) {
	_ = im.retain(l1, -1)
	_ = im.release(im.g.Cluster(first), clusters)
	_ = im.settle()
}

// DeleteSnapshot deletes the first snapshot of a name.
func (im *Image) DeleteSnapshot(name string) error {
	i := slices.IndexFunc(im.snapshots, func(s format.Snapshot) bool { return s.Name == name })
	if i < 0 {
		return ErrNoSnapshot
	}
	gone := im.snapshots[i]
	l1, err := im.snapshotL1(&gone)
	if err != nil {
		return err
	}
	if err := im.writeSnapshots(slices.Delete(slices.Clone(im.snapshots), i, i+1)); err != nil {
		return err
	}
	return errors.Join(im.retain(l1, -1), im.release(gone.L1Offset, im.g.Clusters(int64(len(l1)))), im.settle())
}

// settle ends a change: counts first, and then the flags that say what they are.
func (im *Image) settle() error {
	if err := im.flush(); err != nil {
		return err
	}
	if err := im.settleCopied(); err != nil {
		return err
	}
	return im.file.Sync()
}

func (im *Image) snapshotL1(s *format.Snapshot) ([]byte, error) {
	if err := s.Check(im.g); err != nil {
		return nil, err
	}
	return im.readTable(s.L1Offset, int64(s.L1Entries)*format.EntryBytes)
}

// ApplySnapshot makes the disk what it was at a snapshot, which is found by id or else by name.
func (im *Image) ApplySnapshot(idOrName string) error {
	if _, has := im.bitmapsExtension(); has {
		return unsupported("Device has active dirty bitmaps") // in which nobody would mark what changes
	}
	i := slices.IndexFunc(im.snapshots, func(s format.Snapshot) bool { return s.ID == idOrName })
	if i < 0 {
		i = slices.IndexFunc(im.snapshots, func(s format.Snapshot) bool { return s.Name == idOrName })
	}
	switch {
	case i < 0:
		return ErrNoSnapshot
	case im.header.Has(format.IncompatibleDataFile):
		return syscall.ENOTSUP
	}
	s := &im.snapshots[i]
	l1, err := im.snapshotL1(s)
	if err != nil {
		return err
	}
	table := clearFlags(padded(l1, max(int64(len(l1)), int64(im.g.L1EntriesFor(s.DiskBytes))*format.EntryBytes)))
	clusters := im.g.Clusters(int64(len(table)))
	first, err := im.allocate(clusters)
	if err != nil {
		return err
	}
	if err := im.retain(l1, 1); err != nil {
		return errors.Join(err, im.release(im.g.Cluster(first), clusters), im.flush())
	}
	_, err = im.file.WriteAt(padded(table, clusters<<im.g.ClusterBits), int64(im.g.Cluster(first)))
	if err == nil {
		err = im.flush()
	}
	if err != nil {
		im.takeBack(l1, first, clusters)
		return err
	}
	return im.becomeSnapshot(table, im.g.Cluster(first), s.DiskBytes)
}

// becomeSnapshot turns to another L1 table and another size, with one sector: a power cut leaves the one disk or the other. Then what was is given back.
func (im *Image) becomeSnapshot(table []byte, at format.Host, diskBytes uint64) error {
	h := im.header
	place := binary.BigEndian.AppendUint64(nil, diskBytes)
	place = binary.BigEndian.AppendUint32(place, uint32(h.Crypt))
	place = binary.BigEndian.AppendUint32(place, uint32(len(table)/format.EntryBytes))
	place = binary.BigEndian.AppendUint64(place, uint64(at))
	if _, err := im.file.WriteAt(place, headerSizeAt); err != nil {
		return err
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	old, oldAt := im.l1, h.L1Offset
	im.l1, h.SizeBytes, h.L1Offset, h.L1Entries = table, diskBytes, at, uint32(len(table)/format.EntryBytes)
	return errors.Join(im.retain(old, -1), im.release(oldAt, im.g.Clusters(int64(len(old)))), im.settle())
}

// clearFlags takes the COPIED flags out of an L1 table: what a snapshot refers to is shared.
func clearFlags(l1 []byte) []byte {
	for i := range len(l1) / format.EntryBytes {
		format.SetEntry(l1, i, format.Entry(l1, i)&^format.FlagCopied)
	}
	return l1
}
