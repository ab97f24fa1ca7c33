package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// fill writes the data of a span to its host clusters, which begin at host, and with it what is around the data from from up to to: the guest
// sees these bytes there as well from then on. In blank clusters zeroes need not be written.
//
//	        from      s.off        s.end      to
//	|---------|=========|############|========|------|
//	cluster     as it was    data      as it was
func (i *Image) fill(t *blockcore.Task, s *span, host format.Host, from, to format.Guest, blank bool) error {
	head, tail := int64(s.off-from), int64(to-s.end())
	place := func(off format.Guest) format.Host {
		return host + format.Host(off-(s.off-format.Guest(i.g.GuestInCluster(s.off))))
	}
	headZero, err := i.readsZero(t, from, head)
	if err != nil {
		return err
	}
	tailZero, err := i.readsZero(t, s.end(), tail)
	if err != nil {
		return err
	}
	if blank && headZero {
		from, head = s.off, 0
	}
	if blank && tailZero {
		to, tail = s.end(), 0
	}
	if head == 0 && tail == 0 {
		return i.writeData(t, s.p, place(s.off), 0)
	}
	if head+tail+int64(len(s.p)) <= pieceBytes {
		return i.fillMerged(t, s, place(from), head, tail, headZero, tailZero)
	}
	if err := i.writeData(t, s.p, place(s.off), 0); err != nil {
		return err
	}
	if err := i.move(t, from, head, place(from), headZero); err != nil {
		return err
	}
	return i.move(t, s.end(), tail, place(s.end()), tailZero)
}

// fillMerged writes data and what is around it in one go.
func (i *Image) fillMerged(t *blockcore.Task, s *span, at format.Host, head, tail int64, headZero, tailZero bool) error {
	buf := t.Buffers().Get(int(head + tail + int64(len(s.p))))
	defer t.Buffers().Put(buf)
	front, middle := buf[:head], buf[head:]
	back := middle[len(s.p):]
	copy(middle, s.p)
	if err := i.readAround(t, front, s.off-format.Guest(head), headZero); err != nil {
		return err
	}
	if err := i.readAround(t, back, s.end(), tailZero); err != nil {
		return err
	}
	return i.writeData(t, buf, at, 0)
}

func (i *Image) readAround(t *blockcore.Task, p []byte, off format.Guest, zero bool) error {
	if zero || len(p) == 0 {
		clear(p)
		return nil
	}
	return i.read(t, p, off)
}

// move copies what the guest sees to another place.
func (i *Image) move(t *blockcore.Task, off format.Guest, lengthBytes int64, to format.Host, zero bool) error {
	if lengthBytes == 0 {
		return nil
	}
	if zero {
		return i.zeroData(t, to, lengthBytes)
	}
	buf := t.Buffers().Get(int(min(lengthBytes, pieceBytes)))
	defer t.Buffers().Put(buf)
	for lengthBytes > 0 {
		piece := buf[:min(lengthBytes, int64(len(buf)))]
		if err := i.read(t, piece, off); err != nil {
			return err
		}
		if err := i.writeData(t, piece, to, 0); err != nil {
			return err
		}
		n := int64(len(piece))
		off, to, lengthBytes = off+format.Guest(n), to+format.Host(n), lengthBytes-n
	}
	return nil
}

// link has the L2 entries of a span refer to its host clusters, in which from up to to is valid now, and frees what they referred
// to. It returns for how many clusters that was done.
func (i *Image) link(t *blockcore.Task, s *span, host format.Host, from, to format.Guest) (linked int64, err error) {
	if err := i.writable(); err != nil {
		return 0, err
	}
	clusterBytes := format.Guest(i.g.ClusterBytes())
	for c := s.off - format.Guest(i.g.GuestInCluster(s.off)); c < s.end(); c += clusterBytes {
		at, err := i.place(t, c)
		if err != nil {
			return linked, err
		}
		piece, err := i.l2.get(t, at.piece)
		if err != nil {
			return linked, err
		}
		old := i.g.L2Entry(piece.bytes, at.index-at.first)
		next := format.L2Entry{Descriptor: uint64(host) | format.FlagCopied}
		if i.g.Extended {
			valid := i.subclusters(max(from, c), min(to, c+clusterBytes))
			if !old.Compressed() {
				next.Bits = old.Bits
			}
			next.Bits = next.Bits&^(valid<<format.SubclustersPerCluster) | valid
		}
		i.setEntry(t, piece, at, next)
		i.unordered = true
		if s.kind == spanNew {
			i.freeEntry(t, old, freeOther)
		}
		linked++
		host += format.Host(clusterBytes)
	}
	return linked, nil
}

// setEntry changes an L2 entry in memory. Its table is our own.
func (i *Image) setEntry(t *blockcore.Task, piece *table, at l2Place, e format.L2Entry) {
	i.l2.change(t, piece)
	i.g.SetL2Entry(piece.bytes, at.index-at.first, e)
}

// freeEntry gives up the reference that an L2 entry had.
func (i *Image) freeEntry(t *blockcore.Task, e format.L2Entry, kind freeKind) {
	switch {
	case i.external:
	case e.Compressed():
		at, n := i.g.CompressedRange(e)
		first := i.g.Index(at)
		i.free(freed{first: first, count: i.g.Index(at+format.Host(n-1)) - first + 1, kind: kind})
		i.inflate.forget(e.Descriptor, nil)
	case i.g.InCluster(e.Offset()) != 0: // what is there is somebody else's
		_ = i.corrupt(t, false, -1, -1, "Cannot free unaligned cluster %s", hex(e.Offset()))
	case e.Offset() != 0:
		i.free(freed{first: i.g.Index(e.Offset()), count: 1, kind: kind})
	}
}
