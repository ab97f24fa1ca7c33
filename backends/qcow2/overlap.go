package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// metaKind is a set of kinds of metadata. The bits stand in QEMU's order.
type metaKind uint16

const (
	metaHeader metaKind = 1 << iota
	metaActiveL1
	metaActiveL2
	metaRefBlock
	metaRefTable
	metaSnapshotTable
	metaInactiveL1
	metaInactiveL2
	metaBitmapDirectory

	metaNone metaKind = 0
)

// metaNames are QEMU's, in the order of the bits.
var metaNames = [...]string{
	"qcow2_header", "active L1 table", "active L2 table", "refcount block", "refcount table", "snapshot table", "inactive L1 table",
	"inactive L2 table", "bitmap directory",
}

// OverlapCheck is what writes must not touch. The zero value is OverlapCached.
type OverlapCheck struct {
	// Level is one of QEMU's templates.
	Level OverlapLevel
	// On and Off change single kinds, under the names of QEMU's options: main-header and so on.
	On, Off []string
}

// OverlapLevel is one of QEMU's templates.
type OverlapLevel uint8

const (
	OverlapCached OverlapLevel = iota
	OverlapConstant
	OverlapAll
	OverlapNone
)

// OverlapKinds are the names of single kinds, in the order of metaKind.
var OverlapKinds = [...]string{
	"main-header", "active-l1", "active-l2", "refcount-block", "refcount-table", "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory",
}

func (o OverlapCheck) kinds() metaKind {
	const constant = metaHeader | metaActiveL1 | metaRefTable | metaSnapshotTable | metaBitmapDirectory
	const cached = constant | metaActiveL2 | metaRefBlock | metaInactiveL1
	kinds := [...]metaKind{OverlapCached: cached, OverlapConstant: constant, OverlapAll: cached | metaInactiveL2, OverlapNone: 0}[o.Level&3]
	for n, name := range OverlapKinds {
		for _, on := range o.On {
			if on == name {
				kinds |= 1 << n
			}
		}
		for _, off := range o.Off {
			if off == name {
				kinds &^= 1 << n
			}
		}
	}
	return kinds
}

// metadata is where metadata is in the file. Owned by the context.
type metadata struct {
	checked  metaKind           // kinds that are looked at
	clusters map[int64]metaKind // by number: what lies in single clusters
	ranges   []metaRange
}

// metaRange is clusters [from, to).
type metaRange struct {
	from, to int64
	kind     metaKind
}

func (m *metadata) add(cluster int64, kind metaKind) {
	if kind&m.checked != 0 {
		m.clusters[cluster] |= kind
	}
}

func (m *metadata) remove(cluster int64, kind metaKind) {
	left := m.clusters[cluster] &^ kind
	if left == 0 {
		delete(m.clusters, cluster)
		return
	}
	m.clusters[cluster] = left
}

// set has kind lie in a range of clusters and nowhere else.
func (m *metadata) set(kind metaKind, from, to int64) {
	m.unset(kind)
	m.addRange(kind, from, to)
}

func (m *metadata) addRange(kind metaKind, from, to int64) {
	if kind&m.checked != 0 && to > from {
		m.ranges = append(m.ranges, metaRange{from: from, to: to, kind: kind})
	}
}

func (m *metadata) unset(kind metaKind) {
	kept := m.ranges[:0]
	for _, r := range m.ranges {
		if r.kind != kind {
			kept = append(kept, r)
		}
	}
	m.ranges = kept
}

// at returns what lies in clusters [from, to), but for what is ignored.
func (m *metadata) at(from, to int64, ignored metaKind) metaKind {
	var found metaKind
	for _, r := range m.ranges {
		if r.from < to && from < r.to {
			found |= r.kind
		}
	}
	if len(m.clusters) > 0 {
		for c := from; c < to; c++ {
			found |= m.clusters[c]
		}
	}
	return found & m.checked &^ ignored
}

// checkOverlap refuses a write that would go over metadata of another kind than it is.
func (i *Image) checkOverlap(t *blockcore.Task, off format.Host, lengthBytes int64, own metaKind) error {
	if i.broken && own != metaHeader {
		return i.usable()
	}
	if i.metas.checked == 0 || lengthBytes == 0 {
		return nil
	}
	found := i.metas.at(i.g.Index(off), i.g.Index(off+format.Host(lengthBytes-1))+1, own)
	if found == 0 {
		return nil
	}
	name := ""
	for n := range metaNames {
		if found&(1<<n) != 0 {
			name = metaNames[n]
			break
		}
	}
	return i.corrupt(t, true, int64(off), lengthBytes, "Preventing invalid write on metadata (overlaps with %s)", name)
}
