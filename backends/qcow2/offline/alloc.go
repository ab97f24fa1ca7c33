package offline

import (
	"encoding/binary"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// allocate finds clusters in one piece that nothing refers to, and counts each once. The counts are on disk after flush. None are at no place, 0.
func (im *Image) allocate(clusters int64) (first int64, err error) {
	if clusters == 0 {
		return 0, nil
	}
	for {
		first, err = im.findFree(clusters)
		if err != nil {
			return 0, err
		}
		missing, err := im.missingBlock(first, clusters)
		if err != nil {
			return 0, err
		}
		if missing < 0 {
			break
		}
		if err := im.addBlock(missing); err != nil {
			return 0, err
		}
	}
	for n := first; n < first+clusters; n++ {
		if err := im.setRefcount(n, 1); err != nil {
			return 0, err
		}
	}
	if clusters == 1 {
		im.free = first + 1 // there may be single ones left before a longer piece
	}
	im.end = max(im.end, first+clusters)
	return first, nil
}

// findFree finds clusters in one piece whose refcounts are zero. What no block counts is free.
func (im *Image) findFree(clusters int64) (int64, error) {
	if clusters<<im.g.ClusterBits>>im.g.ClusterBits != clusters {
		return 0, syscall.EFBIG
	}
	run := int64(0)
	for n := im.free; ; n++ {
		count, err := im.refcount(n)
		switch {
		case err != nil:
			return 0, err
		case int64(im.g.Cluster(n)) >= int64(format.HostMax):
			return 0, syscall.EFBIG
		case count != 0:
			run = 0
			continue
		}
		if run++; run == clusters {
			return n + 1 - clusters, nil
		}
	}
}

// missingBlock is the first refcount block that is not there for some clusters; negative = all are.
func (im *Image) missingBlock(first, clusters int64) (int64, error) {
	bits := im.g.RefBlockBits()
	for index := first >> bits; index <= (first+clusters-1)>>bits; index++ {
		there, err := im.loadBlock(index)
		if err != nil || !there {
			return index, err
		}
	}
	return -1, nil
}

// addBlock adds a refcount block. Where the first free cluster has no block either it becomes the one that counts itself, and the
// caller asks again for the block it needs.
func (im *Image) addBlock(index int64) error {
	home, err := im.findFree(1)
	if err != nil {
		return err
	}
	there, err := im.loadBlock(home >> im.g.RefBlockBits())
	if err != nil {
		return err
	}
	if there {
		if err := im.setRefcount(home, 1); err != nil {
			return err
		}
	} else {
		index = home >> im.g.RefBlockBits()
	}
	if err := im.writeBlock(); err != nil {
		return err
	}
	delete(im.blocks, im.g.Cluster(home))
	im.block = refBlock{index: index, data: make([]byte, im.g.ClusterBytes())}
	im.end = max(im.end, home+1)
	if !there {
		im.g.SetRefcount(im.block.data, home&(im.g.RefBlockEntries()-1), 1)
	}
	if _, err := im.file.WriteAt(im.block.data, int64(im.g.Cluster(home))); err != nil {
		return err
	}
	return im.linkBlock(index, im.g.Cluster(home))
}

// linkBlock puts a block that is on disk into the refcount table.
func (im *Image) linkBlock(index int64, at format.Host) error {
	if index >= int64(len(im.refTable)/format.EntryBytes) {
		return im.growRefTable(index, at)
	}
	format.SetEntry(im.refTable, int(index), uint64(at))
	if im.refTableMoves {
		return nil // it is written as a whole
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	where := int64(im.header.RefTableOffset) + index*format.EntryBytes
	_, err := im.file.WriteAt(im.refTable[index*format.EntryBytes:][:format.EntryBytes], where)
	return err
}

// growRefTable makes the refcount table longer by half, and puts it elsewhere.
func (im *Image) growRefTable(index int64, at format.Host) error {
	clusters := im.g.Clusters((index + 1) * format.EntryBytes)
	clusters = max(clusters, int64(im.header.RefTableClusters)*3/2)
	clusters = min(clusters, format.RefTableBytesMax>>im.g.ClusterBits)
	if clusters < im.g.Clusters((index+1)*format.EntryBytes) {
		return syscall.EFBIG
	}
	table := make([]byte, clusters<<im.g.ClusterBits)
	copy(table, im.refTable)
	format.SetEntry(table, int(index), uint64(at))
	im.refTable = table
	if im.refTableMoves {
		return nil // whoever moves it sees that it became longer
	}
	im.refTableMoves = true
	defer func() { im.refTableMoves = false }()
	return im.moveRefTable()
}

// moveRefTable writes the refcount table to new clusters and turns to it.
func (im *Image) moveRefTable() error {
	clusters := int64(len(im.refTable)) >> im.g.ClusterBits
	first, err := im.allocate(clusters)
	if err != nil {
		return err
	}
	if int64(len(im.refTable))>>im.g.ClusterBits != clusters {
		// The blocks for its own clusters made it longer once more; what was allocated is given back.
		if err := im.release(im.g.Cluster(first), clusters); err != nil {
			return err
		}
		return im.moveRefTable()
	}
	if err := im.writeBlock(); err != nil {
		return err
	}
	if _, err := im.file.WriteAt(im.refTable, int64(im.g.Cluster(first))); err != nil {
		return err
	}
	oldAt, oldClusters := im.header.RefTableOffset, int64(im.header.RefTableClusters)
	if err := im.setRefTablePlace(im.g.Cluster(first), clusters); err != nil {
		return err
	}
	return im.release(oldAt, oldClusters)
}

// setRefTablePlace writes into the header where the refcount table is, when the table is on disk.
func (im *Image) setRefTablePlace(at format.Host, clusters int64) error {
	if err := im.file.Sync(); err != nil {
		return err
	}
	im.header.RefTableOffset, im.header.RefTableClusters = at, uint32(clusters)
	place := binary.BigEndian.AppendUint64(nil, uint64(at))
	place = binary.BigEndian.AppendUint32(place, uint32(clusters))
	if _, err := im.file.WriteAt(place, headerRefTableAt); err != nil {
		return err
	}
	return im.file.Sync()
}

// headerRefTableAt is where in the header the place of the refcount table stands, and how many clusters it has.
const headerRefTableAt = 48

// release counts one reference less to clusters.
func (im *Image) release(at format.Host, clusters int64) error {
	for n := im.g.Index(at); n < im.g.Index(at)+clusters; n++ {
		if err := im.addRefcount(n, -1); err != nil {
			return err
		}
	}
	return nil
}

// addRefcount changes the count of a cluster by one.
func (im *Image) addRefcount(cluster, delta int64) error {
	n, err := im.refcount(cluster)
	switch {
	case err != nil:
		return err
	case delta > 0 && n >= im.g.RefcountMax(), delta < 0 && n == 0:
		return syscall.EINVAL
	}
	n += uint64(delta)
	if n == 0 {
		im.free = min(im.free, cluster)
	}
	return im.setRefcount(cluster, n)
}

// flush writes what was counted, and waits until everything is on stable storage.
func (im *Image) flush() error {
	if err := im.writeBlock(); err != nil {
		return err
	}
	return im.file.Sync()
}
