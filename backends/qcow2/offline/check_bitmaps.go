package offline

import (
	"slices"

	"nbd-dataplane/backends/qcow2/format"
)

// bitmaps counts the references of the persistent bitmaps, and notes which of them have no table in the file. With fix it notes too where an entry of a table leads
// nowhere, for markSpoiled.
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
	spoiled := int64(0)
	err := c.bitmapEntries(b, func(_ int64, e format.BitmapEntry) format.BitmapEntry {
		switch {
		case fix && c.leadsNowhere(e):
			spoiled++
		case !e.Valid(c.g):
			c.report.Corruptions++
		case e.Offset() != 0:
			c.refer(e.Offset(), c.g.ClusterBytes(), 1)
		}
		return e
	})
	if spoiled > 0 {
		c.spoiled = append(c.spoiled, *b)
		c.report.Corruptions += spoiled
	}
	return err
}

func (c *check) leadsNowhere(e format.BitmapEntry) bool {
	return !e.Valid(c.g) || e.Offset() != 0 && c.behindEnd(e.Offset(), c.g.ClusterBytes())
}

// bitmapEntries calls fn with each entry of a table, and writes what it returns if that is another one.
func (c *check) bitmapEntries(b *format.Bitmap, fn func(index int64, e format.BitmapEntry) format.BitmapEntry) error {
	lengthBytes := int64(b.TableEntries) * format.EntryBytes
	for done := int64(0); done < lengthBytes; {
		part := c.table[:min(int64(len(c.table)), lengthBytes-done)]
		if err := readAt(c.file, part, int64(b.TableOffset)+done); err != nil {
			return err
		}
		changed := false
		for i := range len(part) / format.EntryBytes {
			before := format.BitmapEntry(format.Entry(part, i))
			if e := fn(done/format.EntryBytes+int64(i), before); e != before {
				format.SetEntry(part, i, uint64(e))
				changed = true
			}
		}
		if changed {
			if _, err := c.file.WriteAt(part, int64(b.TableOffset)+done); err != nil {
				return err
			}
		}
		done += int64(len(part))
	}
	return nil
}

// markSpoiled has everything be marked where an entry of a table leads nowhere: who goes by the bitmap copies too much then, and never too little. (QEMU marks nothing there,
// with the next that opens the image for writing.) It comes when all references are counted.
//
// INVARIANT: nothing is written to a table that something else refers to as well. It may be no table: the place of it may be what is wrong.
func (c *check) markSpoiled() error {
	for i := range c.spoiled {
		b := &c.spoiled[i]
		if !c.isAlone(b.TableOffset, int64(b.TableEntries)*format.EntryBytes) {
			c.say("ERROR bitmap '%s': its table at 0x%x is something else as well", b.Name, uint64(b.TableOffset))
			continue
		}
		err := c.bitmapEntries(b, func(index int64, e format.BitmapEntry) format.BitmapEntry {
			if !c.leadsNowhere(e) {
				return e
			}
			c.say("Repairing bitmap '%s': entry %d leads nowhere, all that it covers is marked", b.Name, index)
			c.report.Corruptions--
			c.report.CorruptionsFixed++
			return format.NewBitmapEntry(0, true)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isAlone reports whether one thing refers to a part of the file, and nothing else, as far as that can be counted.
func (c *check) isAlone(at format.Host, lengthBytes int64) bool {
	if c.crowded {
		return false
	}
	for n := c.g.Index(at); n <= c.g.Index(at+format.Host(lengthBytes-1)); n++ {
		if c.found.of(n) != 1 {
			return false
		}
	}
	return true
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
