package verifier

import (
	"bytes"
	"fmt"
	"sync"
)

// Ledger knows what the sectors of a disk may hold. Its Sessions have no two requests for one sector in flight.
type Ledger struct {
	// Immutable.
	granuleSectors int64
	isVolatile     bool // no place is lasting

	// Guarded by mu.
	mu       sync.Mutex
	sectors  []sector
	granules []granule
	torn     map[uint64][]byte
	clock    int64
	stamps   uint64
	tornNext uint64
	answers  int64
	goal     int64
	reached  chan struct{} // closed when there are as many answers as the goal is; nil = there is none
	capture  *Capture      // nil = no snapshot is being taken
}

// granule is what the image maps as one.
type granule struct {
	era      int   // one more whenever the place may change
	changing int   // requests in flight that may change it
	mapped   int64 // when a write into it was answered, in this era; 0 = none was
	lasting  bool  // a kill leaves it its place
}

// NewLedger returns the ledger of a disk whose sectors all have one stamp: 0 is zeroes.
func NewLedger(sizeBytes, granuleBytes int64, stamp uint64) *Ledger {
	l := &Ledger{
		granuleSectors: granuleBytes / SectorBytes,
		sectors:        make([]sector, sizeBytes/SectorBytes),
		granules:       make([]granule, (sizeBytes+granuleBytes-1)/granuleBytes),
		torn:           map[uint64][]byte{},
		tornNext:       tornStamp,
	}
	for k := range l.sectors {
		l.sectors[k].entries = []entry{l.found(stamp)}
	}
	return l
}

// NewVolatileLedger returns the ledger of a disk of zeroes behind a cache that is lost with a crash: nothing is known to be there but what was flushed, or written
// with FUA.
func NewVolatileLedger(sizeBytes int64) *Ledger {
	l := NewLedger(sizeBytes, sizeBytes, zeroStamp)
	l.isVolatile = true
	return l
}

// found is the entry for what was read after a kill.
func (l *Ledger) found(stamp uint64) entry {
	l.clock++
	return entry{stamp: stamp, kind: cmdWrite, begin: l.clock, end: l.clock, era: -1}
}

// Bytes is the size of the disk.
func (l *Ledger) Bytes() int64 { return int64(len(l.sectors)) * SectorBytes }

// GranuleBytes is the size of what the image maps as one.
func (l *Ledger) GranuleBytes() int64 { return l.granuleSectors * SectorBytes }

// Answers returns how many requests were answered.
func (l *Ledger) Answers() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers
}

// After returns a channel that is closed when so many more requests have been answered.
func (l *Ledger) After(more int64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.goal, l.reached = l.answers+more, make(chan struct{})
	return l.reached
}

// begin notes that a request is about to be sent; false = another one is in flight to one of the sectors.
func (l *Ledger) begin(r *request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	sectors := l.sectors[r.first : r.first+r.count]
	for k := range sectors {
		if sectors[k].busy {
			return false
		}
	}
	l.clock++
	r.sent = l.clock
	if r.command == cmdWrite {
		l.stamps++
		r.stamp = l.stamps
	}
	if r.command == cmdZeroes || r.command == cmdTrim {
		l.granulesOf(r, func(g *granule) {
			g.changes()
			g.changing++
		})
	}
	for k := range sectors {
		sectors[k].busy = true
		if r.command == cmdRead {
			continue
		}
		g := l.granuleOf(r.first + int64(k))
		sectors[k].entries = append(sectors[k].entries,
			entry{stamp: r.stamp, kind: r.command, begin: l.clock, era: g.era, mapped: g.mapped != 0, lasting: g.lasting})
		if c := l.capture; c != nil {
			c.may[r.first+int64(k)] = append(c.may[r.first+int64(k)], r.stamp)
		}
	}
	return true
}

func (g *granule) changes() {
	g.era++
	g.mapped, g.lasting = 0, false
}

func (l *Ledger) granuleOf(sector int64) *granule { return &l.granules[sector/l.granuleSectors] }

func (l *Ledger) granulesOf(r *request, do func(g *granule)) {
	if r.count == 0 {
		return
	}
	for k := r.first / l.granuleSectors; k <= (r.first+r.count-1)/l.granuleSectors; k++ {
		do(&l.granules[k])
	}
}

// end notes an answer. data is what a read has found.
func (l *Ledger) end(r *request, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	l.answers++
	if l.answers == l.goal && l.reached != nil {
		close(l.reached)
	}
	switch r.command {
	case cmdFlush:
		l.flushed(r.sent)
		return nil
	case cmdZeroes, cmdTrim:
		l.granulesOf(r, func(g *granule) {
			g.changing--
			g.changes()
		})
	case cmdWrite:
		l.wrote(r)
	}
	for k := range r.count {
		s := &l.sectors[r.first+k]
		s.busy = false
		if r.command != cmdRead {
			s.answered(l.clock, l.granuleOf(r.first+k), r.flags&flagFUA != 0)
			continue
		}
		if !l.has(r.first+k, data[k*SectorBytes:][:SectorBytes], s.now()) {
			return l.wrong("a read", r.first+k, data[k*SectorBytes:][:SectorBytes])
		}
	}
	return nil
}

// wrote gives the granules of a write their places.
func (l *Ledger) wrote(r *request) {
	if l.isVolatile {
		return
	}
	for k := range r.count {
		g := l.granuleOf(r.first + k)
		if e := l.sectors[r.first+k].last(); g.era != e.era || g.changing > 0 {
			continue
		}
		if g.mapped == 0 {
			g.mapped = l.clock
		}
		g.lasting = g.lasting || r.flags&flagFUA != 0
	}
}

// flushed notes that a flush was answered that had begun at a moment.
func (l *Ledger) flushed(began int64) {
	for k := range l.sectors {
		if len(l.sectors[k].entries) > 1 {
			l.sectors[k].flushed(began)
		}
	}
	for k := range l.granules {
		if g := &l.granules[k]; g.mapped != 0 && g.mapped < began {
			g.lasting = true
		}
	}
}

// Shared notes that all places have changed: there is another snapshot, or one less.
func (l *Ledger) Shared() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.granules {
		l.granules[k].changes()
	}
}

// Killed notes that the server is gone, and all Sessions with it.
func (l *Ledger) Killed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.sectors {
		l.sectors[k].busy = false
	}
	l.capture = nil
	for k := range l.granules {
		g := &l.granules[k]
		g.changing = 0
		if !g.lasting {
			g.changes()
		}
	}
}

// Tally is what was found after a kill: sectors whose last answered request is there, sectors that lost it, and sectors half written.
type Tally struct{ Kept, Lost, Torn int }

// Settle compares the disk as it was found with what may be there. What is there is from now on all that may.
func (l *Ledger) Settle(disk []byte) (Tally, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found Tally
	if int64(len(disk)) != l.Bytes() {
		return found, fmt.Errorf("the disk has %d bytes, want %d", len(disk), l.Bytes())
	}
	for k := range l.sectors {
		s, data := &l.sectors[k], disk[k*SectorBytes:][:SectorBytes]
		may := s.ever()
		stamp, ok := l.match(int64(k), data, may)
		if !ok && s.unanswered() {
			if stamp, ok = l.tear(int64(k), data, may); ok {
				found.Torn++
			}
		}
		if !ok {
			return found, l.wrong("the disk after a kill", int64(k), data)
		}
		found.count(s, stamp)
		if len(s.entries) > 1 || stamp != s.entries[0].stamp {
			s.entries = append(s.entries[:0], l.found(stamp))
		}
	}
	return found, nil
}

// count counts a sector that was written to since the last kill.
func (t *Tally) count(s *sector, stamp uint64) {
	for k := len(s.entries) - 1; k > 0; k-- {
		if e := s.entries[k]; e.end != 0 && e.stamp == stamp {
			t.Kept++
			return
		} else if e.end != 0 {
			t.Lost++
			return
		}
	}
}

// match returns which of several stamps the data of a sector has.
func (l *Ledger) match(number int64, data []byte, may []uint64) (uint64, bool) {
	for _, stamp := range may {
		if stamp >= tornStamp && bytes.Equal(data, l.torn[stamp]) || stamp < tornStamp && isStamped(data, number, stamp) {
			return stamp, true
		}
	}
	return 0, false
}

// tear gives a sector that was half written a stamp of its own. A store through a mapping ends in its middle when the process does.
func (l *Ledger) tear(number int64, data []byte, may []uint64) (uint64, bool) {
	var all [][]byte
	for _, stamp := range may {
		if stamp >= tornStamp {
			all = append(all, l.torn[stamp])
			continue
		}
		all = append(all, Stamped(number, 1, stamp))
	}
	for k := range data {
		one := false
		for _, p := range all {
			one = one || p[k] == data[k]
		}
		if !one {
			return 0, false
		}
	}
	l.tornNext++
	l.torn[l.tornNext] = bytes.Clone(data)
	return l.tornNext, true
}

func (l *Ledger) wrong(where string, number int64, data []byte) error {
	s := &l.sectors[number]
	return fmt.Errorf("%s: sector %d (offset %#x) begins with % x and ends with % x; it may have, in the order of time:%v; its granule: %+v",
		where, number, number*SectorBytes, data[:unitBytes], data[SectorBytes-unitBytes:], s, *l.granuleOf(number))
}
