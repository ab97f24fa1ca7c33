package offline

import "nbd-dataplane/backends/qcow2/format"

// bitmaps counts the references of the persistent bitmaps.
func (c *check) bitmaps() error {
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
		b := &list[i]
		lengthBytes := int64(b.TableEntries) * format.EntryBytes
		c.refer(b.TableOffset, lengthBytes, 1)
		if left -= lengthBytes; left < 0 || int64(b.TableOffset)+lengthBytes > c.fileBytes+c.g.ClusterBytes() {
			c.report.Corruptions++ // tables of bitmaps that overlap, or outside of the file
			continue
		}
		if err := c.bitmapTable(b.TableOffset, lengthBytes); err != nil {
			return err
		}
	}
	return nil
}

// bitmapTable counts the references of one table.
func (c *check) bitmapTable(at format.Host, lengthBytes int64) error {
	for done := int64(0); done < lengthBytes; {
		part := c.table[:min(int64(len(c.table)), lengthBytes-done)]
		if err := readAt(c.file, part, int64(at)+done); err != nil {
			return err
		}
		for i := range len(part) / format.EntryBytes {
			e := format.BitmapEntry(format.Entry(part, i))
			switch {
			case !e.Valid(c.g):
				c.report.Corruptions++
			case e.Offset() != 0:
				c.refer(e.Offset(), c.g.ClusterBytes(), 1)
			}
		}
		done += int64(len(part))
	}
	return nil
}
