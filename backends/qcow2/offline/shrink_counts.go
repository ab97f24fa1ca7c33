package offline

import (
	"nbd-dataplane/backends/qcow2/format"
)

// dropBlocks gives up refcount blocks that count nothing but themselves. The table does without them on disk before their clusters are used by others. It stays as long as
// it is, as with QEMU.
func (im *Image) dropBlocks() error {
	var apart []format.Host         // what other blocks count
	from, to := len(im.refTable), 0 // what changes in the table
	for index := range int64(len(im.refTable) / format.EntryBytes) {
		at := im.refTableEntry(index).Offset()
		there, err := im.loadBlock(index)
		if err != nil {
			return err
		}
		home := im.g.Index(at)
		own := home>>im.g.RefBlockBits() == index
		if !there || !im.blockIdle(home&(im.g.RefBlockEntries()-1), own) {
			continue
		}
		if err := im.writeBlock(); err != nil {
			return err
		}
		im.forgetBlocks()
		format.SetEntry(im.refTable, int(index), 0)
		n := int(index) * format.EntryBytes &^ (format.SectorBytes - 1)
		from, to = min(from, n), n+format.SectorBytes
		if own {
			im.free = min(im.free, home)
		} else {
			apart = append(apart, at)
		}
	}
	if to == 0 {
		return nil
	}
	if _, err := im.file.WriteAt(im.refTable[from:to], int64(im.header.RefTableOffset)+int64(from)); err != nil {
		return err
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	for _, at := range apart {
		if err := im.release(at, 1); err != nil {
			return err
		}
	}
	return im.flush()
}

// blockIdle reports whether the block in memory counts nothing, or nothing but its own cluster, which may be in it.
func (im *Image) blockIdle(own int64, within bool) bool {
	for k := range im.g.RefBlockEntries() {
		if n := im.g.Refcount(im.block.data, k); n != 0 && (n != 1 || !within || k != own) {
			return false
		}
	}
	return true
}
