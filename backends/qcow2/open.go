package qcow2

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// RepairFunc puts the refcounts of an image right that was not closed. It writes to file, and leaves the image without the dirty bit.
type RepairFunc func(t *blockcore.Task, file *blockcore.Edge) error

// Open opens the image in a file, reading what is kept in memory. file is the edge of whoever opens it, who keeps others from changing the file until the
// Image has got an edge of its own by SetChild, with its other children.
func Open(t *blockcore.Task, file *blockcore.Edge, o Options) (*Image, error) {
	h, first, err := ReadHeader(t, file)
	if err != nil {
		return nil, err
	}
	if err := mayOpen(h, o.ReadOnly); err != nil {
		return nil, err
	}
	if h.Has(format.IncompatibleDirty) && !o.ReadOnly {
		if h, first, err = repair(t, file, o.Repair); err != nil {
			return nil, err
		}
	}
	i := &Image{g: h.Geometry(), version: h.Version, header: h, first: first, firstBytes: h.Ends()}
	i.file.Store(file)
	i.size.Store(int64(h.SizeBytes) &^ (format.SectorBytes - 1))
	i.external = h.Has(format.IncompatibleDataFile)
	i.externRaw = i.external && h.Autoclear&format.AutoclearRawData != 0
	if err := i.readTables(t); err != nil {
		return nil, err
	}
	if err := i.loadBitmaps(t, o); err != nil {
		return nil, err
	}
	n, err := i.terms(t, o)
	if err != nil {
		return nil, err
	}
	i.adopt(t, n)
	return i, nil
}

// ReadHeader reads and checks the header of the image in a file. first is the first cluster.
func ReadHeader(t *blockcore.Task, file *blockcore.Edge) (h *format.Header, first []byte, err error) {
	prefix := t.Buffers().Get(format.PrefixBytes)
	defer t.Buffers().Put(prefix)
	if err := readHost(t, file, prefix, 0); err != nil {
		return nil, nil, fmt.Errorf("Could not read qcow2 header: %w", err)
	}
	n, err := format.Prefix(prefix)
	if err != nil {
		return nil, nil, err
	}
	buf := t.Buffers().Get(n)
	defer t.Buffers().Put(buf)
	if err := readHost(t, file, buf, 0); err != nil {
		return nil, nil, fmt.Errorf("Could not read qcow2 header: %w", err)
	}
	first = append([]byte(nil), buf...)
	h, err = format.Parse(first, format.ForUse)
	return h, first, err
}

// mayOpen refuses what is understood and cannot be used.
func mayOpen(h *format.Header, readOnly bool) error {
	switch {
	case h.Has(format.IncompatibleCorrupt) && !readOnly:
		return &format.Error{Errno: syscall.EACCES, Text: "qcow2: Image is corrupt; cannot be opened read/write",
			Hint: "Repair it with 'nbd-dataplane image check -r all', or open it read-only"}
	case h.Crypt == format.CryptAES:
		return &format.Error{Errno: syscall.ENOSYS, Text: "AES-CBC encrypted qcow2 images are not supported",
			Hint: "You can use 'qemu-img convert' to convert your image to an unencrypted qcow2 image, or to one that is encrypted by the guest"}
	case h.Crypt != format.CryptNone:
		return &format.Error{Errno: syscall.ENOSYS, Text: "LUKS encrypted qcow2 images are not supported",
			Hint: "You can use 'qemu-img convert' to convert your image to an unencrypted qcow2 image, or to one that is encrypted by the guest"}
	}
	return nil
}

func repair(t *blockcore.Task, file *blockcore.Edge, fn RepairFunc) (*format.Header, []byte, error) {
	if fn == nil {
		return nil, nil, &format.Error{Errno: syscall.EACCES, Text: "Image was not closed properly; cannot be opened read/write before it is repaired",
			Hint: "Repair it with 'nbd-dataplane image check -r all'"}
	}
	if err := fn(t, file); err != nil {
		return nil, nil, fmt.Errorf("Could not repair dirty image: %w", err)
	}
	h, first, err := ReadHeader(t, file)
	if err == nil && h.Has(format.IncompatibleDirty) {
		err = &format.Error{Errno: syscall.EIO, Text: "Could not repair dirty image"}
	}
	if err == nil {
		err = mayOpen(h, false)
	}
	return h, first, err
}

// readTables reads what is kept in memory for good.
func (i *Image) readTables(t *blockcore.Task) error {
	h, file := i.header, i.file.Load()
	entries, err := readEntries(t, file, h.L1Offset, int(h.L1Entries))
	if err != nil {
		return fmt.Errorf("Could not read L1 table: %w", err)
	}
	i.l1 = newL1Table(entries, h.L1Offset)
	n := int(h.RefTableClusters) << (i.g.ClusterBits - 3)
	if entries, err = readEntries(t, file, h.RefTableOffset, n); err != nil {
		return fmt.Errorf("Could not initialize refcount handling: %w", err)
	}
	i.refs = refcounts{table: entries, at: h.RefTableOffset, dirty: map[int]struct{}{}, next: 0, blank: i.g.Clusters(file.Node().Size())}
	i.snapshots, err = readSnapshots(t, file, h)
	return err
}

// readSnapshots reads the snapshot table, as much of it as turns out to be needed.
func readSnapshots(t *blockcore.Task, file *blockcore.Edge, h *format.Header) ([]format.Snapshot, error) {
	if h.Snapshots == 0 {
		return nil, nil
	}
	for n := 4096; ; n = min(4*n, format.SnapshotTableBytesMax+4096) {
		buf := t.Buffers().Get(n)
		err := readHost(t, file, buf, h.SnapshotsOffset)
		if err != nil {
			t.Buffers().Put(buf)
			return nil, fmt.Errorf("Failed to read snapshot table: %w", err)
		}
		all, _, err := format.ParseSnapshots(buf, h)
		t.Buffers().Put(buf)
		if !errors.Is(err, format.ErrShort) || n > format.SnapshotTableBytesMax {
			return all, err
		}
	}
}

// terms are options and what follows from them: all that has to be found out before they can be taken over.
type terms struct {
	options  Options
	plan     cachePlan
	metas    metadata
	interval time.Duration
	keeps    bool // what is in the caches, which have the same sizes
}

// terms finds out what follows from options.
func (i *Image) terms(t *blockcore.Task, o Options) (n terms, err error) {
	if i.version < 3 && orDefault(o.LazyRefcounts, false) {
		return n, &format.Error{Errno: syscall.EINVAL, Text: "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level"}
	}
	n.options = o
	if n.plan, err = o.Caches.plan(i.g, i.Size()); err != nil {
		return n, err
	}
	if n.metas, err = i.findMetadata(t, o); err != nil {
		return n, err
	}
	n.interval, err = cleanInterval(o.CacheCleanInterval)
	return n, err
}

// present are the terms that hold now.
func (i *Image) present() terms {
	plan := cachePlan{l2Pieces: i.l2.piecesMax, refBlocks: i.refs.blocks.piecesMax, l2PieceBytes: i.l2.pieceBytes}
	return terms{options: i.options, plan: plan, metas: i.metas, interval: i.cleaner.interval}
}

// adopt takes terms over, when nothing is in memory that is not on disk. It cannot fail.
func (i *Image) adopt(t *blockcore.Task, n terms) {
	o := n.options
	i.cleaner.stop()
	i.options, i.readOnly, i.metas, i.cleaner.interval = o, o.ReadOnly, n.metas, n.interval
	i.lazy = i.version >= 3 && orDefault(o.LazyRefcounts, i.header.Compatible&format.CompatibleLazyRefcounts != 0)
	i.passes = [freeKinds]bool{
		freeRequest:  orDefault(o.PassDiscardRequest, o.Unmap),
		freeSnapshot: orDefault(o.PassDiscardSnapshot, true),
		freeOther:    orDefault(o.PassDiscardOther, false),
	}
	i.unmarked = !o.ReadOnly && (i.unsure || i.header.Autoclear&^format.AutoclearKnown != 0 || len(i.bitmaps.entries) > 0 && !i.bitmaps.inUse)
	i.bitmaps.list.SetReadOnly(o.ReadOnly)
	if !n.keeps {
		i.makeCaches(t, n.plan)
	} else if len(i.l2.pieces)+len(i.refs.blocks.pieces) > 0 {
		i.cleanLater()
	}
}

// makeCaches begins with empty caches.
func (i *Image) makeCaches(t *blockcore.Task, plan cachePlan) {
	if i.l2 != nil {
		i.l2.dropAll(t)
		i.refs.blocks.dropAll(t)
	}
	i.l2 = newCache(i, metaActiveL2, plan.l2PieceBytes, plan.l2Pieces)
	i.l2.makeRoom = i.commit
	i.refs.blocks = newCache(i, metaRefBlock, i.g.ClusterBytes(), plan.refBlocks)
	i.refs.blocks.makeRoom = i.writeBlocks
}

// findMetadata notes what must not be written over.
func (i *Image) findMetadata(t *blockcore.Task, o Options) (metadata, error) {
	m := metadata{clusters: map[int64]metaKind{}}
	if o.ReadOnly {
		return m, nil
	}
	m.checked = o.Overlap.kinds()
	h := i.header
	place := func(kind metaKind, at format.Host, bytes int64) {
		m.addRange(kind, i.g.Index(at), i.g.Index(at)+i.g.Clusters(bytes))
	}
	m.addRange(metaHeader, 0, 1)
	place(metaActiveL1, i.l1.at, int64(len(i.l1.entries))*format.EntryBytes)
	place(metaRefTable, i.refs.at, int64(h.RefTableClusters)<<i.g.ClusterBits)
	if len(i.snapshots) > 0 {
		table, err := format.MarshalSnapshots(i.snapshots)
		if err != nil {
			return m, err
		}
		place(metaSnapshotTable, h.SnapshotsOffset, int64(len(table)))
	}
	if e := h.Extension(format.ExtensionBitmaps); e != nil {
		if b, err := format.ParseBitmaps(e.Data, i.g); err == nil {
			place(metaBitmapDirectory, b.DirectoryOffset, int64(b.DirectoryBytes))
		}
	}
	for _, e := range i.l1.entries {
		if at := format.L1Entry(e).Offset(); at != 0 {
			m.add(i.g.Index(at), metaActiveL2)
		}
	}
	for _, e := range i.refs.table {
		if at := format.RefTableEntry(e).Offset(); at != 0 {
			m.add(i.g.Index(at), metaRefBlock)
		}
	}
	left := i.file.Load().Node().Size() // honest tables are not longer together, and others would keep us busy for ever
	for k := range i.snapshots {
		s := &i.snapshots[k]
		place(metaInactiveL1, s.L1Offset, int64(s.L1Entries)*format.EntryBytes)
		if m.checked&metaInactiveL2 == 0 || s.Check(i.g) != nil {
			continue
		}
		if left -= int64(s.L1Entries) * format.EntryBytes; left < 0 {
			break
		}
		entries, err := readEntries(t, i.file.Load(), s.L1Offset, int(s.L1Entries))
		if err != nil {
			return m, fmt.Errorf("read the L1 table of snapshot '%s': %w", s.Name, err)
		}
		for _, e := range entries {
			if at := format.L1Entry(e).Offset(); at != 0 {
				m.add(i.g.Index(at), metaInactiveL2)
			}
		}
	}
	return m, nil
}
