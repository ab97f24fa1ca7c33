package raw

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// scanMax bounds how many extents one visit of a worker looks up: a reply needs no more, and the worker is
// wanted by others.
const scanMax = 4096

// walkInlineMax is the most extents that the loop itself looks up: a client that asks for one at a time, as QEMU does, waits
// longer for a worker than for the lookup, and one that asks for many only waits for a worker once.
const walkInlineMax = 4

// BlockStatus appends the extents from r.Offset on. A hole reads as zeroes; whatever the file is
// made of, it is this layer that has it, so the depth is always 1.
//
// lseek(SEEK_DATA) may read metadata, or pass over many pages. As long as it is quick the loop does it, and else a worker
// (see pace); where the answer may come from far away, always a worker.
func (f *File) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	if f.device.block || f.lacks.seek.Load() {
		return append(exts, dataExtent(r.Length)), nil
	}
	if end := f.data.covers(r.Offset); end > 0 {
		return append(exts, dataExtent(min(end, r.End())-r.Offset)), nil
	}
	s := scan{f: f, exts: exts, max: len(exts) + min(max, scanMax), at: r.Offset, end: r.End()}
	seen := f.data.generation()
	if err := s.start(t); err != nil {
		return exts, f.fail("look for holes in", f.base+s.at, err)
	}
	f.data.remember(seen, s.lastData)
	return s.exts, nil
}

func dataExtent(length int64) blockcore.Extent {
	return blockcore.Extent{Length: length, Depth: 1}
}

func holeExtent(length int64) blockcore.Extent {
	return blockcore.Extent{Length: length, Depth: 1, Status: blockcore.ExtentHole | blockcore.ExtentZero}
}

// scan is one walk over data and holes, in offsets of the disk.
type scan struct {
	f        *File
	exts     []blockcore.Extent
	max      int
	at, end  int64
	lastData blockcore.Range // as far as the file has it, beyond end too
}

// start walks here or in a worker.
func (s *scan) start(t *blockcore.Task) error {
	if !s.f.device.local || s.max-len(s.exts) > walkInlineMax || !s.f.walk.inline(t.Latest()) {
		return t.Block(s.run)
	}
	begin := t.Now()
	err := s.run()
	now := t.Now()
	s.f.walk.observe(now, now-begin, 0)
	return err
}

func (s *scan) run() error {
	for s.at < s.end && len(s.exts) < s.max {
		if err := s.step(); err != nil {
			return err
		}
	}
	return nil
}

// step appends the hole that begins here, if there is one, or else the data.
func (s *scan) step() error {
	data, err := s.seek(s.at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		s.appendHole(s.end) // nothing but a hole, or the tail behind the end
		return nil
	case errors.Is(err, unix.EINVAL) || unsupported(err):
		s.f.lacks.seek.Store(true)
		s.appendData(s.end)
		return nil
	case err != nil:
		return err
	}
	data = max(s.at, data&^(s.f.limits.Align-1))
	if data > s.at {
		s.appendHole(min(data, s.end))
		return nil
	}
	hole, err := s.seek(s.at, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		// Somebody else has cut the file off between the two questions.
		hole, err = s.at+1, nil
	}
	if err != nil {
		return err
	}
	// A file may end inside a block, and some file systems find data where they then say a hole begins.
	hole, ok := roundUp(max(hole, s.at+1), s.f.limits.Align)
	if !ok {
		hole = s.end
	}
	s.lastData = blockcore.Range{Offset: s.at, Length: hole - s.at}
	s.appendData(min(hole, s.end))
	return nil
}

func (s *scan) seek(at int64, whence int) (int64, error) {
	pos, err := s.f.system.seek(s.f.fd, s.f.base+at, whence)
	return pos - s.f.base, err
}

func (s *scan) appendHole(end int64) {
	s.exts = append(s.exts, holeExtent(end-s.at))
	s.at = end
}

func (s *scan) appendData(end int64) {
	s.exts = append(s.exts, dataExtent(end-s.at))
	s.at = end
}

// dataCache remembers the last run of data that was found. A client that asks in small steps would otherwise have
// some file systems walk the same long extent for each (SEEK_HOLE on tmpfs is linear). Holes are not
// remembered: another process may fill them, and a stale hole is a lie, stale data only a
// missed chance.
type dataCache struct {
	// Guarded by mu.
	mu      sync.Mutex
	run     blockcore.Range
	forgets uint64
}

// covers returns where the run that holds off ends, or 0.
func (c *dataCache) covers(off int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off < c.run.Offset || off >= c.run.End() {
		return 0
	}
	return c.run.End()
}

func (c *dataCache) generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forgets
}

// remember stores a run found while nothing was forgotten since generation seen.
func (c *dataCache) remember(seen uint64, run blockcore.Range) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seen == c.forgets && run.Length > 0 {
		c.run = run
	}
}

// forget is called after everything that may have made a hole.
func (c *dataCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run = blockcore.Range{}
	c.forgets++
}
