package qcow2

import (
	"math/bits"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// spanKind says how a run of clusters is written.
type spanKind uint8

const (
	spanInPlace spanKind = iota // the L2 entries stay as they are
	spanKept                    // in the host clusters that are there, whose contents do not count everywhere
	spanNew                     // in new host clusters
)

// span is a run of a write whose clusters are written in one way and lie together in the file, or will.
type span struct {
	kind        spanKind
	off         format.Guest
	p           []byte
	host        format.Host    // of the first byte's cluster; not of spanNew
	first, last format.L2Entry // of the first and of the last cluster, before
}

func (s *span) end() format.Guest { return s.off + format.Guest(len(s.p)) }

// entry reads the L2 entry of a guest cluster that is written to, and checks it.
func (i *Image) entry(t *blockcore.Task, off format.Guest) (format.L2Entry, error) {
	e, at, err := i.rawEntry(t, off)
	if err == nil && at.table != 0 {
		_, err = i.interpret(t, e, at, off, forWriting)
	}
	return e, err
}

// rawEntry reads the L2 entry of a guest cluster.
func (i *Image) rawEntry(t *blockcore.Task, off format.Guest) (format.L2Entry, l2Place, error) {
	at, err := i.place(t, off)
	if err != nil || at.table == 0 {
		return format.L2Entry{}, at, err
	}
	piece, err := i.l2.get(t, at.piece)
	if err != nil {
		return format.L2Entry{}, at, err
	}
	return i.g.L2Entry(piece.bytes, at.index-at.first), at, nil
}

// spans splits a write.
func (i *Image) spans(t *blockcore.Task, p []byte, off format.Guest) ([]span, error) {
	var all []span
	for len(p) > 0 {
		n := min(i.g.ClusterBytes()-i.g.GuestInCluster(off), int64(len(p)))
		e, err := i.entry(t, off)
		if err != nil {
			return nil, err
		}
		next := span{kind: i.spanKind(e, off, n), off: off, p: p[:n], host: e.Offset(), first: e, last: e}
		if last := len(all) - 1; last < 0 || !all[last].join(&next, i.g) {
			all = append(all, next)
		}
		p, off = p[n:], off+format.Guest(n)
	}
	return all, nil
}

// join puts next behind s if they can be written as one.
func (s *span) join(next *span, g format.Geometry) bool {
	begin := s.off - format.Guest(g.GuestInCluster(s.off))
	if s.kind != next.kind || s.kind != spanNew && next.host != s.host+format.Host(next.off-begin) {
		return false
	}
	s.p = s.p[:len(s.p)+len(next.p)] // they are parts of one buffer
	s.last = next.last
	return true
}

// spanKind tells how n bytes at off, in one cluster, are to be written.
func (i *Image) spanKind(e format.L2Entry, off format.Guest, n int64) spanKind {
	kind := i.g.Kind(e, i.external)
	switch {
	case kind != format.Normal && kind != format.ZeroAlloc || !e.Copied():
		return spanNew
	case kind == format.ZeroAlloc:
		return spanKept
	case i.g.Extended && i.subclusters(off, off+format.Guest(n))&^e.Bits != 0:
		return spanKept
	}
	return spanInPlace
}

// subclusters returns the bits of the subclusters that [from, to) touches, both in one cluster.
func (i *Image) subclusters(from, to format.Guest) uint64 {
	if from >= to {
		return 0
	}
	first := i.g.GuestInCluster(from) >> i.g.SubclusterBits()
	last := i.g.GuestInCluster(to-1) >> i.g.SubclusterBits()
	return (1<<(last+1) - 1) &^ (1<<first - 1)
}

// begin is where what has to be written of s begins: at the cluster, or subcluster, since it is seen as a whole from then on.
func (i *Image) begin(s *span) format.Guest {
	unit := format.Guest(i.g.SubclusterBytes())
	at := s.off &^ (unit - 1)
	if !i.g.Extended {
		return at
	}
	cluster := s.off - format.Guest(i.g.GuestInCluster(s.off))
	switch {
	case s.kind == spanKept && i.subclusters(s.off, s.off+1)&s.first.Bits != 0:
		return s.off
	case s.kind == spanKept:
	case s.first.Compressed():
		return cluster
	case s.first.Bits&format.AllocatedBits != 0: // what others have too moves with it
		return min(at, cluster+unit*format.Guest(bits.TrailingZeros64(s.first.Bits)))
	}
	return at
}

// finish is where what has to be written of s ends.
func (i *Image) finish(s *span) format.Guest {
	unit := format.Guest(i.g.SubclusterBytes())
	last := s.end() - 1
	at := last&^(unit-1) + unit
	if !i.g.Extended {
		return at
	}
	cluster := last - format.Guest(i.g.GuestInCluster(last))
	switch {
	case s.kind == spanKept && i.subclusters(last, last+1)&s.last.Bits != 0:
		return s.end()
	case s.kind == spanKept:
	case s.last.Compressed():
		return cluster + format.Guest(i.g.ClusterBytes())
	case s.last.Bits&format.AllocatedBits != 0:
		return max(at, cluster+unit*format.Guest(bits.Len64(s.last.Bits&format.AllocatedBits)))
	}
	return at
}

// writeSpan writes a span and has its L2 entries say so.
func (i *Image) writeSpan(t *blockcore.Task, s *span, flags blockcore.WriteFlags) error {
	switch s.kind {
	case spanInPlace:
		defer i.exitInPlace(i.enterInPlace())
		return i.writeData(t, s.p, s.host+format.Host(i.g.GuestInCluster(s.off)), flags)
	case spanKept:
		return i.writeKept(t, s, s.host)
	}
	if i.external {
		return i.writeKept(t, s, format.Host(s.off-format.Guest(i.g.GuestInCluster(s.off))))
	}
	return i.writeNew(t, s)
}

// writeKept writes a span into the clusters at host, which are its own already.
func (i *Image) writeKept(t *blockcore.Task, s *span, host format.Host) error {
	i.awaitKept(t, i.clustersOf(s.off, int64(len(s.p))))
	from, to := i.begin(s), i.finish(s)
	if err := i.fill(t, s, host, from, to, false); err != nil {
		return err
	}
	_, err := i.link(t, s, host, from, to)
	return err
}

// writeNew writes a span into new clusters, as many at once as lie together.
func (i *Image) writeNew(t *blockcore.Task, s *span) error {
	rest := *s
	for len(rest.p) > 0 {
		clusters := i.clustersOf(rest.off, int64(len(rest.p))).Length >> i.g.ClusterBits
		r, err := i.allocate(t, clusters, dataCluster)
		if err != nil {
			return err
		}
		now := rest
		if r.count < clusters {
			n := r.count<<i.g.ClusterBits - i.g.GuestInCluster(rest.off)
			now.p, rest.p, rest.off = rest.p[:n], rest.p[n:], rest.off+format.Guest(n)
			if rest.first, err = i.entry(t, rest.off); err == nil {
				now.last, err = i.entry(t, now.end()-1)
			}
			if err != nil {
				i.release(t, r)
				return err
			}
		} else {
			rest.p = nil
		}
		if err := i.writeRun(t, &now, r); err != nil {
			return err
		}
	}
	return nil
}

// writeRun writes a span into clusters that are its own from then on.
func (i *Image) writeRun(t *blockcore.Task, s *span, r run) error {
	from, to := i.begin(s), i.finish(s)
	linked := int64(0)
	err := i.fill(t, s, r.host, from, to, r.blank)
	if err == nil {
		linked, err = i.link(t, s, r.host, from, to)
	}
	if err != nil {
		i.release(t, run{host: r.host + format.Host(linked<<i.g.ClusterBits), count: r.count - linked})
	}
	return err
}
