package qcow2

import (
	"errors"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// table is a piece of metadata in memory: an L2 table or a part of it, or a refcount block. What is in it may be looked at and changed up to
// the next suspension; then it has to be asked for again.
type table struct {
	// Owned by the context.
	at      format.Host
	bytes   []byte // as on disk, from Buffers
	loading bool
	loaded  blockcore.WaitQueue
	err     error // of loading
	// dirty: it has changed since it was written, or a commit took it.
	dirty bool
	// taken: a commit is about to write it, as it was then: from frozen, if that is not nil, which has what it was before it was changed again.
	taken  bool
	frozen []byte

	dirtyAt    int    // where it is among the dirty ones
	prev, next *table // in the order of use; nil = it cannot be dropped now
	round      uint32 // of the cache, in which it was used last
}

// cache keeps pieces of metadata of one kind and one size.
type cache struct {
	// Immutable.
	image      *Image
	kind       metaKind
	pieceBytes int64

	// Owned by the context.
	piecesMax int
	pieces    map[format.Host]*table
	dirty     []*table // each once
	// order is a ring of what is clean and can be dropped at once: next is what was used last, prev what was used least.
	order table
	round uint32 // counts the visits of the cleaner
	// makeRoom writes out what is dirty; there is nothing clean.
	makeRoom func(t *blockcore.Task) error
}

func newCache(i *Image, kind metaKind, pieceBytes int64, piecesMax int) *cache {
	c := &cache{image: i, kind: kind, pieceBytes: pieceBytes, piecesMax: piecesMax, pieces: map[format.Host]*table{}}
	c.order.prev, c.order.next = &c.order, &c.order
	return c
}

// unlink takes p out of the order: it cannot be dropped now.
func (p *table) unlink() {
	if p.next == nil {
		return
	}
	p.prev.next, p.next.prev = p.next, p.prev
	p.prev, p.next = nil, nil
}

// used notes that p was used last.
func (c *cache) used(p *table) {
	p.round = c.round
	if c.order.next == p || p.dirty || p.taken {
		return
	}
	p.unlink()
	p.prev, p.next = &c.order, c.order.next
	p.prev.next, p.next.prev = p, p
}

// peek returns a piece that is there, or nil. It does not suspend.
func (c *cache) peek(at format.Host) *table {
	p := c.pieces[at]
	if p == nil || p.loading {
		return nil
	}
	c.used(p)
	return p
}

// get returns the piece at a place, and reads it if need be.
func (c *cache) get(t *blockcore.Task, at format.Host) (*table, error) {
	for {
		p := c.pieces[at]
		switch {
		case p == nil:
			if err := c.room(t); err != nil {
				return nil, err
			}
			if c.pieces[at] == nil {
				return c.load(t, at)
			}
		case p.loading:
			t.Wait(&p.loaded)
			if p.err != nil && !errors.Is(p.err, blockcore.ErrCancelled) { // whoever loaded it was given up, and we were not
				return nil, p.err
			}
		default:
			c.used(p)
			return p, nil
		}
	}
}

func (c *cache) load(t *blockcore.Task, at format.Host) (*table, error) {
	p := &table{at: at, bytes: t.Buffers().Get(int(c.pieceBytes)), loading: true}
	c.pieces[at] = p
	c.image.cleanLater()
	p.err = readHost(t, c.image.file.Load(), p.bytes, at)
	p.loading = false
	p.loaded.WakeAll()
	if p.err != nil {
		delete(c.pieces, at)
		t.Buffers().Put(p.bytes)
		return nil, p.err
	}
	c.used(p)
	return p, nil
}

// insert adds a piece that is not read but made. Its memory is not cleared. It does not suspend.
func (c *cache) insert(t *blockcore.Task, at format.Host) *table {
	p := c.pieces[at]
	if p == nil {
		p = &table{at: at, bytes: t.Buffers().Get(int(c.pieceBytes))}
		c.pieces[at] = p
		c.image.cleanLater()
	}
	c.used(p)
	return p
}

// room makes room for one more piece. When all are being written the cache holds more than it should for a while.
func (c *cache) room(t *blockcore.Task) error {
	if len(c.pieces) < c.piecesMax {
		return nil
	}
	if c.evict(t) {
		return nil
	}
	if len(c.dirty) == 0 {
		return nil // all of it is loading, or being written
	}
	if err := c.makeRoom(t); err != nil {
		return err
	}
	c.evict(t)
	return nil
}

// evict drops what was used least of what is clean.
func (c *cache) evict(t *blockcore.Task) bool {
	p := c.order.prev
	if p == &c.order {
		return false
	}
	c.drop(t, p)
	return true
}

func (c *cache) drop(t *blockcore.Task, p *table) {
	p.unlink()
	delete(c.pieces, p.at)
	t.Buffers().Put(p.bytes)
	p.bytes = nil
}

// dropAll forgets everything, what is dirty too.
func (c *cache) dropAll(t *blockcore.Task) {
	for _, p := range c.pieces {
		if !p.loading {
			c.drop(t, p)
		}
	}
	c.dirty = nil
}

// forget drops the pieces in a range of the file that was given up.
func (c *cache) forget(t *blockcore.Task, at format.Host, lengthBytes int64) {
	for end := at + format.Host(lengthBytes); at < end; at += format.Host(c.pieceBytes) {
		p := c.pieces[at]
		if p == nil || p.loading || p.taken {
			continue
		}
		c.clean(p)
		c.drop(t, p)
	}
}

// clean takes p off the list of what is dirty.
func (c *cache) clean(p *table) {
	if !p.dirty {
		return
	}
	end := len(c.dirty) - 1
	last := c.dirty[end]
	c.dirty[p.dirtyAt], last.dirtyAt = last, p.dirtyAt
	c.dirty[end] = nil
	c.dirty = c.dirty[:end]
	p.dirty = false
}

// change is called before p is changed.
func (c *cache) change(t *blockcore.Task, p *table) {
	if p.taken && p.frozen == nil {
		p.frozen = p.bytes // which the kernel may be reading
		p.bytes = t.Buffers().Get(len(p.frozen))
		copy(p.bytes, p.frozen)
	}
	c.soil(p)
}

func (c *cache) soil(p *table) {
	if !p.dirty {
		p.unlink()
		p.dirty, p.dirtyAt = true, len(c.dirty)
		c.dirty = append(c.dirty, p)
	}
}

// soilAgain has a piece written again that was written for nothing. If it is not here any more, what was written is what counts.
func (c *cache) soilAgain(p *table) {
	if c.pieces[p.at] == p {
		c.soil(p)
	}
}

// take has a commit take all that is dirty, as it is now.
func (c *cache) take() []*table {
	all := c.dirty
	c.dirty = nil
	for _, p := range all {
		p.dirty, p.taken = false, true
	}
	return all
}

// write writes what was taken, as it was then. What could not be written is dirty again.
func (c *cache) write(t *blockcore.Task, all []*table) error {
	return parallel(t, len(all), func(t *blockcore.Task, k int) error {
		p := all[k]
		bytes := p.bytes
		if p.frozen != nil {
			bytes = p.frozen
		}
		err := c.image.writeMeta(t, bytes, p.at, c.kind)
		c.giveBack(t, p, err != nil)
		return err
	})
}

// giveBack ends what take began.
func (c *cache) giveBack(t *blockcore.Task, p *table, failed bool) {
	if !p.taken {
		return
	}
	p.taken = false
	if p.frozen != nil {
		t.Buffers().Put(p.frozen)
		p.frozen = nil
	}
	if failed {
		c.soil(p)
	}
	c.used(p)
}
