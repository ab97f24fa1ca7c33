package verifier

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// SectorBytes is what a Ledger has entries for: no disk leaves less than that half done.
const SectorBytes = 512

// unitBytes is what repeats in a sector: its number and what was written.
const unitBytes = 16

// Stamps that no request writes.
const (
	zeroStamp = 0
	// BaseStamp is in what was there before the first request.
	BaseStamp = 1 << 62
	// tornStamp and above are in sectors that were half written at a kill; what is in them is in Ledger.torn.
	tornStamp = 1 << 63
)

// Stamped returns sectors with a stamp: what a disk is filled with before the first request.
func Stamped(first, count int64, stamp uint64) []byte {
	return appendSectors(make([]byte, 0, count*SectorBytes), first, count, stamp)
}

func appendSectors(out []byte, first, count int64, stamp uint64) []byte {
	if stamp == zeroStamp {
		return append(out, make([]byte, count*SectorBytes)...)
	}
	for s := first; s < first+count; s++ {
		for range SectorBytes / unitBytes {
			out = binary.BigEndian.AppendUint64(out, uint64(s))
			out = binary.BigEndian.AppendUint64(out, stamp)
		}
	}
	return out
}

// entry is one thing that may be in a sector.
type entry struct {
	stamp   uint64
	kind    uint16 // cmdWrite, cmdZeroes, cmdTrim
	begin   int64  // when the request was sent
	end     int64  // when the answer came; 0 = it has not
	era     int    // of the granule, at the beginning
	mapped  bool   // the granule had a place
	lasting bool   // and a lasting one
}

// sector is what is known of one: what may be there after a kill, in the order of time. The first entry has an end and is no trim.
type sector struct {
	entries []entry
	busy    bool // a request for it is in flight
}

// last is what a request in flight is to the sector.
func (s *sector) last() *entry { return &s.entries[len(s.entries)-1] }

// since forgets what was before entry k.
func (s *sector) since(k int) { s.entries = slices.Delete(s.entries, 0, k) }

// answered notes that the last request was.
func (s *sector) answered(at int64, g *granule, fua bool) {
	e, k := s.last(), len(s.entries)-1
	e.end = at
	switch {
	case e.kind == cmdTrim: // may have done nothing
	case fua, e.kind == cmdWrite && e.lasting && e.era == g.era:
		s.since(k)
	case e.kind == cmdWrite && e.mapped && e.era == g.era:
		// It went where what was written in this era is.
		mine := *e
		s.entries = append(slices.DeleteFunc(s.entries[:k], func(o entry) bool { return o.kind == cmdWrite && o.end != 0 && o.era == mine.era }), mine)
	}
}

// flushed forgets what was before the last thing that is lasting since a flush that began at a moment.
func (s *sector) flushed(at int64) {
	for k := len(s.entries) - 1; k > 0; k-- {
		if e := s.entries[k]; e.end != 0 && e.end < at && e.kind != cmdTrim {
			s.since(k)
			return
		}
	}
}

// now lists what may be read while the server runs.
func (s *sector) now() []uint64 {
	var all []uint64
	for k := len(s.entries) - 1; k >= 0; k-- {
		e := &s.entries[k]
		all = append(all, e.stamp)
		if e.end != 0 && e.kind != cmdTrim {
			break
		}
	}
	return all
}

// ever lists what may be found after a kill.
func (s *sector) ever() []uint64 {
	var all []uint64
	for _, e := range s.entries {
		all = append(all, e.stamp)
	}
	return all
}

// unanswered reports whether something was in flight.
func (s *sector) unanswered() bool {
	return slices.ContainsFunc(s.entries, func(e entry) bool { return e.end == 0 })
}

// String lists the entries.
func (s *sector) String() string {
	var b strings.Builder
	for _, e := range s.entries {
		fmt.Fprintf(&b, " [%#x command %d sent %d answered %d era %d mapped %v lasting %v]", e.stamp, e.kind, e.begin, e.end, e.era, e.mapped, e.lasting)
	}
	return b.String()
}

// isStamped reports whether the data of a sector is that of a stamp.
func isStamped(data []byte, number int64, stamp uint64) bool {
	var unit [unitBytes]byte
	if stamp != zeroStamp {
		binary.BigEndian.PutUint64(unit[:], uint64(number))
		binary.BigEndian.PutUint64(unit[8:], stamp)
	}
	// What begins right and equals itself a unit later is right to its end.
	return bytes.Equal(data[:unitBytes], unit[:]) && bytes.Equal(data[unitBytes:], data[:len(data)-unitBytes])
}
