package format

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"syscall"
)

// snapshotHeadBytes is the fixed part of an entry of the snapshot table.
const snapshotHeadBytes = 40

// snapshotExtraKnown is how much of the extra data we know: size of the VM state, disk size, instruction count.
const snapshotExtraKnown = 24

// NoInstructionCount is what Snapshot.InstructionCount says when there is none.
const NoInstructionCount = ^uint64(0)

// Snapshot is an entry of the snapshot table. See qcow2.txt, "Snapshots".
type Snapshot struct {
	L1Offset     Host
	L1Entries    uint32
	ID, Name     string // at most 65535 bytes each
	Seconds      uint32 // since the epoch, and
	Nanoseconds  uint32 // besides
	VMClock      uint64 // nanoseconds that the guest ran
	VMStateBytes uint64
	// DiskBytes is the size of the disk then.
	DiskBytes uint64
	// InstructionCount is QEMU's icount.
	InstructionCount uint64
	// ExtraBytes is how much extra data the entry had, of which missing fields were made up.
	ExtraBytes uint32
	// Unknown is the extra data that we do not know.
	Unknown []byte
}

// ErrShort says that a table goes on behind what was passed.
var ErrShort = errors.New("qcow2: the table goes on")

// ParseSnapshots reads the snapshot table of an image with that header. p is the beginning of the table, which has no length of its
// own: ErrShort asks for more. used is how long the table is.
func ParseSnapshots(p []byte, h *Header) (all []Snapshot, used int, err error) {
	for i := range int(h.Snapshots) {
		s, n, err := parseSnapshot(p[used:], h, SnapshotExtraMax)
		if errors.Is(err, errExtra) {
			return nil, 0, &Error{Errno: syscall.EINVAL, Text: refuse(0, "Too much extra metadata in snapshot table entry %d", i).Text,
				Hint: "You can force-remove this extra metadata by updating the image via qemu-img check -r all"}
		}
		if err != nil {
			return nil, 0, err
		}
		if used += n; used > SnapshotTableBytesMax {
			return nil, 0, &Error{Errno: syscall.EFBIG, Text: "Snapshot table is too big",
				Hint: "You can force-remove snapshots that are too many by updating the image via qemu-img check -r all"}
		}
		all = append(all, s)
	}
	return all, used, nil
}

// ParseAnySnapshots is ParseSnapshots for a check. Extra data may be longer than is good, even so long that the rest of the table cannot
// be: then such an entry, without its names, is the last. whole says that p is all that there is.
func ParseAnySnapshots(p []byte, h *Header, whole bool) (all []Snapshot, used int, err error) {
	for range int(h.Snapshots) {
		s, n, err := parseSnapshot(p[used:], h, SnapshotTableBytesMax)
		if (errors.Is(err, ErrShort) && whole || errors.Is(err, errExtra)) && s.ExtraBytes > SnapshotExtraMax {
			return append(all, s), len(p), nil
		}
		if err != nil {
			return nil, 0, err
		}
		if used += n; used > SnapshotTableBytesMax {
			return nil, 0, refuse(syscall.EFBIG, "Snapshot table is too big")
		}
		all = append(all, s)
	}
	return all, used, nil
}

// errExtra says that an entry has more extra data than it may. The entry has its head.
var errExtra = errors.New("qcow2: too much extra data")

func parseSnapshot(p []byte, h *Header, extraMax uint32) (s Snapshot, n int, err error) {
	be := binary.BigEndian
	if len(p) < snapshotHeadBytes {
		return s, 0, ErrShort
	}
	s = Snapshot{
		L1Offset: Host(be.Uint64(p)), L1Entries: be.Uint32(p[8:]),
		Seconds: be.Uint32(p[16:]), Nanoseconds: be.Uint32(p[20:]), VMClock: be.Uint64(p[24:]),
		VMStateBytes: uint64(be.Uint32(p[32:])), DiskBytes: h.SizeBytes, InstructionCount: NoInstructionCount,
		ExtraBytes: be.Uint32(p[36:]),
	}
	idBytes, nameBytes := int(be.Uint16(p[12:])), int(be.Uint16(p[14:]))
	if s.ExtraBytes > extraMax {
		return s, 0, errExtra
	}
	extra := int(s.ExtraBytes)
	n = (snapshotHeadBytes + extra + idBytes + nameBytes + 7) &^ 7
	if len(p) < n {
		return s, 0, ErrShort
	}
	rest := p[snapshotHeadBytes:]
	s.parseExtra(rest[:extra])
	rest = rest[extra:]
	s.ID, s.Name = string(rest[:idBytes]), string(rest[idBytes:idBytes+nameBytes])
	return s, n, nil
}

func (s *Snapshot) parseExtra(p []byte) {
	if len(p) >= 8 {
		s.VMStateBytes = binary.BigEndian.Uint64(p)
	}
	if len(p) >= 16 {
		s.DiskBytes = binary.BigEndian.Uint64(p[8:])
	}
	if len(p) >= snapshotExtraKnown {
		s.InstructionCount = binary.BigEndian.Uint64(p[16:])
	}
	if len(p) > snapshotExtraKnown {
		s.Unknown = slices.Clone(p[snapshotExtraKnown:])
	}
}

// Check refuses a snapshot whose L1 table cannot be where it says.
func (s *Snapshot) Check(g Geometry) error {
	if s.L1Offset == 0 && s.L1Entries > 0 { // to give that up would be to give up the header
		return refuse(syscall.EINVAL, "Snapshot L1 table offset invalid")
	}
	return g.CheckTable("Snapshot L1 table", s.L1Offset, int64(s.L1Entries), EntryBytes, L1BytesMax)
}

// MarshalSnapshots writes a snapshot table, with all the extra data that there is.
func MarshalSnapshots(all []Snapshot) ([]byte, error) {
	var p []byte
	for i := range all {
		s := &all[i]
		if len(s.ID) > 0xffff || len(s.Name) > 0xffff || snapshotExtraKnown+len(s.Unknown) > SnapshotExtraMax {
			return nil, refuse(syscall.EFBIG, "Snapshot table is too big")
		}
		p = s.marshal(p)
		if len(p) > SnapshotTableBytesMax {
			return nil, refuse(syscall.EFBIG, "Snapshot table is too big")
		}
	}
	return p, nil
}

func (s *Snapshot) marshal(p []byte) []byte {
	be := binary.BigEndian
	from := len(p)
	p = be.AppendUint64(p, uint64(s.L1Offset))
	p = be.AppendUint32(p, s.L1Entries)
	p = be.AppendUint16(p, uint16(len(s.ID)))
	p = be.AppendUint16(p, uint16(len(s.Name)))
	p = be.AppendUint32(p, s.Seconds)
	p = be.AppendUint32(p, s.Nanoseconds)
	p = be.AppendUint64(p, s.VMClock)
	small := uint32(s.VMStateBytes)
	if s.VMStateBytes > 0xffffffff {
		small = 0 // only in the extra data, as in QEMU
	}
	p = be.AppendUint32(p, small)
	p = be.AppendUint32(p, uint32(snapshotExtraKnown+len(s.Unknown)))
	p = be.AppendUint64(p, s.VMStateBytes)
	p = be.AppendUint64(p, s.DiskBytes)
	p = be.AppendUint64(p, s.InstructionCount)
	p = append(p, s.Unknown...)
	p = append(p, s.ID...)
	p = append(p, s.Name...)
	return append(p, make([]byte, -(len(p)-from)&7)...)
}

// NextSnapshotID is an id that no snapshot has: one more than the largest that is a number.
func NextSnapshotID(all []Snapshot) string {
	highest := uint64(0)
	for i := range all {
		if n, err := strconv.ParseUint(all[i].ID, 10, 63); err == nil {
			highest = max(highest, n)
		}
	}
	return strconv.FormatUint(highest+1, 10)
}
