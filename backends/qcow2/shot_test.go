package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
)

// shot is the bytes of a disk at a moment: an offline.File.
type shot struct {
	p    []byte
	said []string // by the last check
}

func (s *shot) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 || at >= int64(len(s.p)) {
		return 0, io.EOF
	}
	n := copy(p, s.p[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// shotMax bounds what a repair may make of it.
const shotMax = 64 << 20

func (s *shot) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > shotMax {
		return 0, syscall.ENOSPC
	}
	if more := at + int64(len(p)) - int64(len(s.p)); more > 0 {
		s.p = append(s.p, make([]byte, more)...)
	}
	return copy(s.p[at:], p), nil
}

func (s *shot) Size() (int64, error) { return int64(len(s.p)), nil }

func (s *shot) Truncate(sizeBytes int64) error {
	s.p = append(s.p, make([]byte, max(sizeBytes-int64(len(s.p)), 0))...)[:sizeBytes]
	return nil
}

func (s *shot) Sync() error { return nil }

// clone is a shot of its own.
func (s *shot) clone() *shot { return &shot{p: append([]byte(nil), s.p...)} }

// check has the offline check look the image over.
func (s *shot) check(repair offline.Repair) (offline.Report, error) {
	s.said = nil
	im, err := offline.Open(s, format.ForCheck)
	if err != nil {
		return offline.Report{}, err
	}
	r, err := im.Check(offline.CheckOptions{Repair: repair, Say: func(line string) { s.said = append(s.said, line) }})
	if err == nil && (r.Corruptions > 0 || r.CheckErrors > 0) {
		err = fmt.Errorf("%d corruptions, %d errors:\n%s", r.Corruptions, r.CheckErrors, strings.Join(s.said, "\n"))
	}
	return r, err
}

// mend returns an image without errors, and whether it was dirty: one that was not closed with lazy refcounts, or in the middle of a change of snapshots, is
// repaired first. high: in an image of version 2, which cannot say so, counts may be too high, and entries not know that they are alone.
func (s *shot) mend(high bool) (*shot, bool, error) {
	h, err := format.Parse(s.p[:min(len(s.p), 2<<20)], format.ForUse)
	if err != nil {
		return nil, false, err
	}
	dirty := h.Has(format.IncompatibleDirty)
	if !dirty {
		r, err := s.check(offline.RepairNothing)
		if err == nil || !high || h.Version > 2 || r.CheckErrors > 0 {
			return s, false, err
		}
	}
	c := s.clone()
	if !dirty {
		_, err := c.check(offline.RepairLeaks)
		_, again := c.check(offline.RepairNothing)
		for _, line := range c.said {
			if !strings.HasPrefix(line, "ERROR OFLAG_COPIED") || !strings.HasSuffix(line, "refcount=1") {
				return nil, false, errors.Join(err, again)
			}
		}
	}
	if _, err := c.check(offline.RepairAll); err != nil {
		return nil, dirty, err
	}
	_, err = c.check(offline.RepairNothing)
	return c, dirty, err
}

// reader knows what the sectors of an image hold, by a way of its own.
type reader struct {
	file, data, backing *shot // data and backing may be nil
	h                   *format.Header
	g                   format.Geometry
}

func newReader(file, data, backing *shot) (*reader, error) {
	h, err := format.Parse(file.p[:min(len(file.p), 2<<20)], format.ForUse)
	if err != nil {
		return nil, err
	}
	return &reader{file: file, data: data, backing: backing, h: h, g: h.Geometry()}, nil
}

// bytes of a file, with zeroes behind its end.
func (s *shot) bytes(off format.Host, n int64) []byte {
	if int64(off)+n <= int64(len(s.p)) {
		return s.p[off : int64(off)+n]
	}
	p := make([]byte, n)
	if int64(off) < int64(len(s.p)) {
		copy(p, s.p[off:])
	}
	return p
}

// stamps returns the stamp of each sector below an L1 table.
func (r *reader) stamps(l1Offset format.Host, l1Entries uint32, sectors int64) ([]uint64, error) {
	stamps := make([]uint64, sectors)
	if r.backing != nil {
		for s := range min(sectors, int64(len(r.backing.p))/512) {
			stamps[s] = binary.BigEndian.Uint64(r.backing.p[s*512:])
		}
	}
	l1 := r.file.bytes(l1Offset, int64(l1Entries)*format.EntryBytes)
	for k := range int(l1Entries) {
		e := format.L1Entry(format.Entry(l1, k))
		if e.Offset() == 0 {
			continue
		}
		l2 := r.file.bytes(e.Offset(), r.g.ClusterBytes())
		for n := range r.g.L2Entries() {
			first := (int64(k)<<r.g.L2Bits() + int64(n)) << (r.g.ClusterBits - 9)
			if first >= sectors {
				break
			}
			if err := r.cluster(r.g.L2Entry(l2, n), stamps[first:min(sectors, first+r.g.ClusterBytes()/512)]); err != nil {
				return nil, fmt.Errorf("sector %d: %w", first, err)
			}
		}
	}
	return stamps, nil
}

// cluster enters the stamps of one cluster.
func (r *reader) cluster(e format.L2Entry, stamps []uint64) error {
	var data []byte
	switch {
	case e.Compressed():
		at, n := r.g.CompressedRange(e)
		data = make([]byte, r.g.ClusterBytes())
		if err := unpackZlib(data, r.file.bytes(at, n)); err != nil {
			return err
		}
	case e.Offset() != 0 || r.data != nil:
		from := r.file
		if r.data != nil {
			from = r.data
		}
		data = from.bytes(e.Offset(), r.g.ClusterBytes())
	}
	for s := range stamps {
		switch r.g.SubKind(e, s*512>>r.g.SubclusterBits(), r.data != nil) {
		case format.Normal, format.Compressed:
			stamps[s] = binary.BigEndian.Uint64(data[s*512:])
			if last := binary.BigEndian.Uint64(data[s*512+504:]); stamps[s] != last {
				return fmt.Errorf("sector %d of the cluster is in pieces: %x, %x", s, stamps[s], last)
			}
		case format.ZeroPlain, format.ZeroAlloc:
			stamps[s] = 0
		}
	}
	return nil
}

// active are the stamps of the disk, and past those of each snapshot by its name.
func (r *reader) active() ([]uint64, error) {
	return r.stamps(r.h.L1Offset, r.h.L1Entries, int64(r.h.SizeBytes)/512)
}

func (r *reader) past() (map[string][]uint64, error) {
	all, _, err := format.ParseSnapshots(r.file.bytes(r.h.SnapshotsOffset, 64<<10), r.h)
	if err != nil {
		return nil, err
	}
	past := map[string][]uint64{}
	for _, s := range all {
		sectors := int64(r.h.SizeBytes) / 512
		if s.DiskBytes != 0 {
			sectors = int64(s.DiskBytes) / 512
		}
		if past[s.Name], err = r.stamps(s.L1Offset, s.L1Entries, sectors); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", s.Name, err)
		}
	}
	return past, nil
}
