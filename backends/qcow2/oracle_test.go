package qcow2

import "encoding/binary"

// guestOp gives sectors a stamp; 0 = zeroes. One that may also leave them as they were is a discard.
type guestOp struct {
	interval
	first, count int64
	stamp        uint64
	// stamps are those of each sector, where they differ: what was brought back.
	stamps  []uint64
	mayKeep bool
	fua     bool // durable when it ends
	// below may be seen as well before it is durable, as if there had never been anything.
	below []byte
}

func (o *guestOp) at(sector int64) uint64 {
	if o.stamps != nil {
		return o.stamps[sector-o.first]
	}
	return o.stamp
}

func (o *guestOp) shows(sector int64, stamp uint64) bool {
	at := sector * 512
	return at+512 <= int64(len(o.below)) && binary.BigEndian.Uint64(o.below[at:]) == stamp
}

// sizeOp gives the disk a length, which is durable when it ends.
type sizeOp struct {
	interval
	sectors int64
}

// begin notes an operation; end is called when it has succeeded.
func (h *history) begin(o *guestOp) *guestOp {
	o.interval = interval{begin: h.tick()}
	h.ops = append(h.ops, o)
	return o
}

func (h *history) end(o *guestOp) { o.end = h.tick() }

// oracle knows what a history allows. It is made when the history has ended.
type oracle struct {
	h       *history
	before  []uint64
	sectors [][]*guestOp // the operations on each, in the order of time
}

func newOracle(h *history, before []uint64) *oracle {
	o := &oracle{h: h, before: before}
	for _, op := range h.ops {
		for more := op.first + op.count - int64(len(o.sectors)); more > 0; more-- {
			o.sectors = append(o.sectors, nil)
		}
		for s := op.first; s < op.first+op.count; s++ {
			o.sectors[s] = append(o.sectors[s], op)
		}
	}
	return o
}

// flushed tells when the last flush began that had ended at a moment.
func (h *history) flushed(at int) int {
	durable := 0
	for _, f := range h.flush {
		if f.end != 0 && f.end <= at {
			durable = max(durable, f.begin)
		}
	}
	return durable
}

// may reports whether a sector may have a stamp at a moment, when all is durable that ended before flushed.
func (o *oracle) may(sector int64, stamp uint64, at, flushed int) bool {
	if sector < int64(len(o.sectors)) {
		ops := o.sectors[sector]
		for k := len(ops) - 1; k >= 0; k-- {
			op := ops[k]
			if op.begin > at {
				continue
			}
			if op.at(sector) == stamp || op.shows(sector, stamp) {
				return true
			}
			if durable := op.end != 0 && (op.end < flushed || op.fua && op.end <= at); durable && !op.mayKeep {
				return false
			}
		}
	}
	if sector >= int64(len(o.before)) {
		return stamp == 0
	}
	return stamp == o.before[sector]
}

// mayBe reports whether the disk may be that long at a moment.
func (o *oracle) mayBe(sectors int64, at int) bool {
	for k := len(o.h.sizes) - 1; k >= 0; k-- {
		s := o.h.sizes[k]
		if s.begin > at {
			continue
		}
		if s.sectors == sectors {
			return true
		}
		if s.end != 0 && s.end <= at {
			return false
		}
	}
	return sectors == int64(len(o.before))
}
