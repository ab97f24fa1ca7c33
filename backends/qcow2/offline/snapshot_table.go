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

// writeSnapshots writes a new snapshot table and gives the old one back.
func (im *Image) writeSnapshots(all []format.Snapshot) error {
	table, err := format.MarshalSnapshots(all)
	if err != nil {
		return err
	}
	place := make([]byte, 12) // number and offset, as the header has them
	if len(all) > 0 {
		first, err := im.allocate(im.g.Clusters(int64(len(table))))
		if err != nil {
			return err
		}
		if _, err := im.file.WriteAt(table, int64(im.g.Cluster(first))); err != nil {
			return err
		}
		binary.BigEndian.PutUint32(place, uint32(len(all)))
		binary.BigEndian.PutUint64(place[4:], uint64(im.g.Cluster(first)))
	}
	if err := im.flush(); err != nil {
		return err
	}
	if _, err := im.file.WriteAt(place, headerSnapshotsAt); err != nil {
		return err
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	old, oldBytes := im.header.SnapshotsOffset, im.snapshotBytes
	im.header.Snapshots, im.header.SnapshotsOffset = uint32(len(all)), format.Host(binary.BigEndian.Uint64(place[4:]))
	im.snapshots, im.snapshotBytes = all, int64(len(table))
	if oldBytes == 0 {
		return nil
	}
	return im.release(old, im.g.Clusters(oldBytes))
}

// headerSnapshotsAt is where in the header the number of snapshots stands, and where their table is.
const headerSnapshotsAt = 60
