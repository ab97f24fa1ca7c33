package verifier

import "fmt"

// Capture is what a snapshot may hold that is taken while Sessions work: what was answered before, and, old or new, what was in flight meanwhile.
type Capture struct {
	// Guarded by ledger.mu.
	may [][]uint64 // of each sector
}

// Capture begins a snapshot: call it before the server is asked for one. From then on no place is lasting that was, since what the snapshot holds is not
// overwritten; and until Captured none becomes so, since nobody knows on which side of the snapshot it is.
func (l *Ledger) Capture() *Capture {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &Capture{may: make([][]uint64, len(l.sectors))}
	for k := range l.sectors {
		c.may[k] = l.sectors[k].now()
	}
	for k := range l.granules {
		l.granules[k].changes()
		l.granules[k].changing++
	}
	l.capture = c
	return c
}

// Captured ends it: the server has answered.
func (l *Ledger) Captured() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.granules {
		l.granules[k].changing--
		l.granules[k].changes()
	}
	l.capture = nil
}

// Holds compares what a snapshot holds with what it may.
func (l *Ledger) Holds(c *Capture, disk []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int64(len(disk)) != l.Bytes() {
		return fmt.Errorf("the snapshot has %d bytes, want %d", len(disk), l.Bytes())
	}
	for k, may := range c.may {
		if data := disk[k*SectorBytes:][:SectorBytes]; !l.has(int64(k), data, may) {
			return fmt.Errorf("sector %d of the snapshot begins with % x; it may have %#x", k, data[:unitBytes], may)
		}
	}
	return nil
}

func (l *Ledger) has(number int64, data []byte, may []uint64) bool {
	_, ok := l.match(number, data, may)
	return ok
}
