package offline

import (
	"encoding/binary"
	"errors"
	"fmt"

	"nbd-dataplane/backends/qcow2/format"
)

// firstTryBytes is how much of the snapshot table is read at first.
const firstTryBytes = 64 << 10

// readSnapshots reads the snapshot table.
func (im *Image) readSnapshots() error {
	parse := func(p []byte, _ bool) ([]format.Snapshot, int, error) { return format.ParseSnapshots(p, im.header) }
	if err := im.parseSnapshots(parse); err != nil {
		return fmt.Errorf("Could not read snapshots: %w", err)
	}
	return nil
}

// parseSnapshots reads the snapshot table, which does not say how long it is: more and more of it is tried. whole
// tells that there is no more.
func (im *Image) parseSnapshots(parse func(p []byte, whole bool) ([]format.Snapshot, int, error)) error {
	im.snapshots, im.snapshotBytes = nil, 0
	if im.header.Snapshots == 0 {
		return nil
	}
	from := int64(im.header.SnapshotsOffset)
	for length := int64(firstTryBytes); ; length *= 2 {
		inFile := min(length, max(0, im.fileBytes-from))
		whole := inFile < length
		table := make([]byte, inFile)
		if whole {
			table = make([]byte, inFile+behindEnd(im.header))
		}
		if err := readAt(im.file, table, from); err != nil {
			return err
		}
		all, used, err := parse(table, whole)
		switch {
		case err == nil:
			im.snapshots, im.snapshotBytes = all, int64(used)
			return nil
		case !errors.Is(err, format.ErrShort) || whole:
			return err
		}
	}
}

// behindEnd is how many zeroes are read behind the end of the file: enough for entries of nothing, and for the names of one.
func behindEnd(h *format.Header) int64 {
	const entry, names = 40, 2*0xffff + format.SnapshotExtraMax
	return entry*int64(min(h.Snapshots, format.SnapshotsMax)) + names
}

// snapshotTable is a snapshot table that is on disk, and nothing leads to it yet.
type snapshotTable struct {
	all       []format.Snapshot
	at        format.Host // 0 = there are none
	sizeBytes int64
}

// writeSnapshots writes a new snapshot table and gives the old one back.
func (im *Image) writeSnapshots(all []format.Snapshot) error {
	t, err := im.newSnapshotTable(all)
	if err != nil {
		return err
	}
	return im.turnToSnapshots(t)
}

// newSnapshotTable writes a snapshot table to clusters of its own. When that fails nothing is changed.
func (im *Image) newSnapshotTable(all []format.Snapshot) (snapshotTable, error) {
	p, err := format.MarshalSnapshots(all)
	if err != nil {
		return snapshotTable{}, err
	}
	t := snapshotTable{all: all, sizeBytes: int64(len(p))}
	clusters := im.g.Clusters(t.sizeBytes)
	first, err := im.allocate(clusters)
	if err != nil {
		return snapshotTable{}, err
	}
	t.at = im.g.Cluster(first)
	_, err = im.file.WriteAt(p, int64(t.at))
	if err == nil {
		err = im.flush()
	}
	if err != nil {
		_ = im.release(t.at, clusters)
		return snapshotTable{}, err
	}
	return t, nil
}

// turnToSnapshots has the header lead to a table, and gives the old one back. When that fails nobody knows which one it leads to.
func (im *Image) turnToSnapshots(t snapshotTable) error {
	place := binary.BigEndian.AppendUint32(nil, uint32(len(t.all))) // number and offset, as the header has them
	place = binary.BigEndian.AppendUint64(place, uint64(t.at))
	if _, err := im.file.WriteAt(place, headerSnapshotsAt); err != nil {
		return err
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	old, oldBytes := im.header.SnapshotsOffset, im.snapshotBytes
	im.header.Snapshots, im.header.SnapshotsOffset = uint32(len(t.all)), t.at
	im.snapshots, im.snapshotBytes = t.all, t.sizeBytes
	return im.releaseTable(old, im.g.Clusters(oldBytes), t)
}

// releaseTable gives the clusters of an old snapshot table back. That may have been damaged, and said to be where nothing is in use, or no file, or where the new
// one has found room.
func (im *Image) releaseTable(at format.Host, clusters int64, t snapshotTable) error {
	first, end := im.g.Index(t.at), im.g.Index(t.at)+im.g.Clusters(t.sizeBytes)
	for n := im.g.Index(at); n < min(im.g.Index(at)+clusters, max(im.g.Clusters(im.fileBytes), im.end)); n++ {
		count, err := im.refcount(n)
		if err == nil && count > 0 && (n < first || n >= end) {
			err = im.addRefcount(n, -1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// headerSnapshotsAt is where in the header the number of snapshots stands, and where their table is.
const headerSnapshotsAt = 60
