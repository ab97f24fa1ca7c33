package offline

import (
	"slices"

	"nbd-dataplane/backends/qcow2/format"
)

// bitmaps counts the references of the persistent bitmaps, and notes which of them have no table in the file. With fix it has everything be marked where an entry of a table
// leads nowhere: who goes by the bitmap copies too much then, and never too little. (QEMU marks nothing there, with the next that opens the image for writing.)
func (c *check) bitmaps(fix bool) error {
	ext, ok := c.bitmapsExtension()
	if !ok {
		return nil
	}
	c.refer(ext.DirectoryOffset, int64(ext.DirectoryBytes), 1)
	list, err := c.readBitmaps(ext)
	if err != nil {
		c.report.Corruptions++
		return nil
	}
	left := c.fileBytes*l1BytesFactor + c.g.ClusterBytes()
	for i := range list {
		at, lengthBytes := list[i].TableOffset, int64(list[i].TableEntries)*format.EntryBytes
		left -= lengthBytes
		switch {
		case left < 0:
			c.report.Corruptions++ // tables that overlap, or are too much to be written anew
		case slices.Contains(c.lost, i): // the file may have become longer in between
			c.report.Corruptions++
		case c.behindEnd(at, lengthBytes):
			c.refer(at, lengthBytes, 1) // which says so
			c.lost = append(c.lost, i)
		default:
			c.refer(at, lengthBytes, 1)
			if err := c.bitmapTable(&list[i], fix); err != nil {
				return err
			}
		}
	}
	return nil
}

// behindEnd reports whether a part of the file would be behind its end, by a cluster or more.
func (c *check) behindEnd(at format.Host, lengthBytes int64) bool {
	return int64(at) >= c.fileBytes+c.g.ClusterBytes()-lengthBytes
}

// bitmapTable counts the references of one table.
func (c *check) bitmapTable(b *format.Bitmap, fix bool) error {
	lengthBytes := int64(b.TableEntries) * format.EntryBytes
	for done := int64(0); done < lengthBytes; {
		part := c.table[:min(int64(len(c.table)), lengthBytes-done)]
		if err := readAt(c.file, part, int64(b.TableOffset)+done); err != nil {
			return err
		}
		mended := false
		for i := range len(part) / format.EntryBytes {
			e := format.BitmapEntry(format.Entry(part, i))
			switch good := e.Valid(c.g) && (e.Offset() == 0 || !c.behindEnd(e.Offset(), c.g.ClusterBytes())); {
			case !good && fix:
				c.say("Repairing bitmap '%s': entry %d leads nowhere, all that it covers is marked", b.Name, done/format.EntryBytes+int64(i))
				format.SetEntry(part, i, uint64(format.NewBitmapEntry(0, true)))
				c.report.CorruptionsFixed++
				mended = true
			case !e.Valid(c.g):
				c.report.Corruptions++
			case e.Offset() != 0:
				c.refer(e.Offset(), c.g.ClusterBytes(), 1)
			}
		}
		if mended {
			if _, err := c.file.WriteAt(part, int64(b.TableOffset)+done); err != nil {
				return err
			}
		}
		done += int64(len(part))
	}
	return nil
}

// repairBitmaps gives bitmaps that have none in the file new tables, in which everything is marked. It comes after the refcounts, which have to be good for it.
func (c *check) repairBitmaps() error {
	if len(c.lost) == 0 || c.Repair != RepairAll || c.report.CheckErrors > 0 {
		return nil
	}
	list, err := c.Bitmaps()
	if err != nil {
		return err
	}
	for _, i := range c.lost {
		c.say("Repairing bitmap '%s': its table is not in the file, everything is marked", list[i].Name)
		if err := c.markAll(&list[i]); err != nil {
			return err
		}
	}
	if err := c.writeBitmaps(list); err != nil {
		return err
	}
	c.report.Corruptions -= int64(len(c.lost))
	c.report.CorruptionsFixed += int64(len(c.lost))
	return nil
}

// markAll writes a new table for a bitmap, in which everything is marked. The directory is to be written.
func (c *check) markAll(b *format.Bitmap) error {
	table := make([]byte, int64(b.TableEntries)*format.EntryBytes)
	for i := range int(b.TableEntries) {
		format.SetEntry(table, i, uint64(format.NewBitmapEntry(0, true)))
	}
	clusters := c.g.Clusters(int64(len(table)))
	first, err := c.allocate(clusters)
	if err != nil {
		return err
	}
	b.TableOffset = c.g.Cluster(first)
	_, err = c.file.WriteAt(padded(table, clusters<<c.g.ClusterBits), int64(b.TableOffset))
	return err
}
