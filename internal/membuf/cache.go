package membuf

import "unsafe"

const (
	// cacheClasses is the number of classes a Cache keeps: 4 KiB to 1 MiB. Larger ones are
	// worth a lock.
	cacheClasses = 9
	// cacheClassBytes bounds what a Cache keeps of one class, so that a loop keeps at most
	// some 5 MiB. Of the largest class it keeps one all the same.
	cacheClassBytes = 512 << 10
)

// Cache is the front of a Pool for one AioContext. Buffers may go back to another Cache, or to
// the Pool, than the one they came from.
type Cache struct {
	// Immutable.
	pool *Pool

	// Owned by the context.
	kept [cacheClasses][]unsafe.Pointer // stacks of fixed capacity
}

// NewCache returns an empty cache.
func (p *Pool) NewCache() *Cache {
	c := &Cache{pool: p}
	for i := range c.kept {
		c.kept[i] = make([]unsafe.Pointer, 0, max(cacheClassBytes/classBytes(i), 1))
	}
	return c
}

// Get is Pool.Get.
func (c *Cache) Get(n int) []byte {
	i := sizeClass(n)
	if n == 0 || i >= cacheClasses {
		return c.pool.Get(n)
	}
	addr, ok := pop(&c.kept[i])
	if !ok {
		addr = c.refill(i)
	}
	return c.pool.lend(addr, n, classBytes(i))
}

// Put is Pool.Put.
func (c *Cache) Put(b []byte) {
	i, ok := capClass(cap(b))
	if !ok || i >= cacheClasses {
		c.pool.Put(b)
		return
	}
	c.pool.takeBack(b)
	if len(c.kept[i]) == cap(c.kept[i]) {
		c.spill(i, (len(c.kept[i])+1)/2)
	}
	c.kept[i] = append(c.kept[i], unsafe.Pointer(unsafe.SliceData(b)))
}

// Drain gives all that is kept to the pool: for a loop that goes to sleep for long, or ends.
func (c *Cache) Drain() {
	for i := range c.kept {
		c.spill(i, len(c.kept[i]))
	}
}

// refill returns a buffer of class i from the pool and takes more of them along, up to half
// of what may be kept, under one hold of the lock.
func (c *Cache) refill(i int) unsafe.Pointer {
	p, size := c.pool, classBytes(i)
	more := cap(c.kept[i]) / 2
	p.mu.Lock()
	defer p.mu.Unlock()
	addr := p.takeLocked(i, size)
	f := &p.free[i]
	n := min(more, len(f.warm)+len(f.cold))
	// The warmest is handed out at once and the next ones end on top.
	kept := c.kept[i][:n]
	for j := n - 1; j >= 0; j-- {
		kept[j] = p.takeLocked(i, size)
	}
	c.kept[i] = kept
	return addr
}

// spill gives the n coolest buffers of class i to the pool.
func (c *Cache) spill(i, n int) {
	if n == 0 {
		return
	}
	p := c.pool
	p.mu.Lock()
	for _, addr := range c.kept[i][:n] {
		p.giveLocked(i, addr)
	}
	over := p.cached > p.cachedMax
	p.mu.Unlock()
	rest := copy(c.kept[i], c.kept[i][n:])
	c.kept[i] = c.kept[i][:rest]
	if over {
		p.trim(i)
	}
}
