package sim

import (
	"errors"
	"math/rand/v2"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// filter passes everything on to its child. With a policy it flushes by itself some time after a write.
type filter struct {
	layer

	// Immutable.
	rng     *rand.Rand
	flushes bool
	policy  blockcore.ChorePolicy

	// Owned by the context.
	chore *blockcore.Chore
}

func (w *world) newFilter(name string) *filter {
	f := &filter{rng: w.stream(name)}
	f.layer.init(w, name, f)
	f.flushes = f.rng.IntN(2) == 0
	f.policy = blockcore.ChorePolicy(f.rng.IntN(3))
	return f
}

// SetChild implements blockcore.Parent.
func (f *filter) SetChild(role blockcore.Role, e *blockcore.Edge) {
	if f.running > 0 {
		f.w.Fail("node %s gets another child with %d requests in it", f.name, f.running)
	}
	if role == blockcore.RoleTarget {
		f.target = e
		return
	}
	f.file = e
}

// Size is that of the child.
func (f *filter) Size() int64 {
	if f.file == nil {
		return 0
	}
	return f.file.Node().Size()
}

// Features implements blockcore.Featurer.
func (f *filter) Features() blockcore.Features { return blockcore.Features{Filter: true} }

// pass lets others run before a request goes on, sometimes.
func (f *filter) pass(t *blockcore.Task) {
	if f.rng.IntN(4) == 0 {
		t.Yield()
	}
}

// ReadAt implements blockcore.Driver.
func (f *filter) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	defer f.enter("read")()
	f.pass(t)
	return f.file.Read(t, p, off)
}

// WriteAt implements blockcore.Writer.
func (f *filter) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	defer f.enter("write")()
	f.pass(t)
	err := f.file.Write(t, p, off, flags)
	if f.target != nil {
		_ = f.target.Write(t, p, off, flags) // nobody reads it
	}
	f.wantFlush()
	if f.rng.IntN(2) == 0 {
		f.node.Background("flush behind", f.flushBehind)
	}
	f.pass(t)
	return err
}

// Flush implements blockcore.Flusher.
func (f *filter) Flush(t *blockcore.Task) error {
	defer f.enterFlush()()
	if f.file == nil {
		return nil
	}
	f.pass(t)
	return f.file.Flush(t)
}

// WriteZeroes implements blockcore.Zeroer.
func (f *filter) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	defer f.enter("zero")()
	f.pass(t)
	return f.file.WriteZeroes(t, r, flags)
}

// Discard implements blockcore.Discarder.
func (f *filter) Discard(t *blockcore.Task, r blockcore.Range) error {
	defer f.enter("discard")()
	f.pass(t)
	return f.file.Discard(t, r, false)
}

// flushBehind flushes the child behind a request, which does not wait for it.
func (f *filter) flushBehind(t *blockcore.Task) {
	defer f.enter("flush behind")()
	t.Sleep(time.Duration(1+f.rng.IntN(200)) * time.Microsecond)
	_ = f.file.Flush(t)
}

// wantFlush has the child flushed later.
func (f *filter) wantFlush() {
	if !f.flushes {
		return
	}
	if f.chore == nil {
		f.chore = f.node.NewChore(f.policy, f.flushLater)
	}
	if !f.chore.Pending() {
		f.chore.After(time.Duration(f.rng.IntN(2000)) * time.Microsecond)
	}
}

func (f *filter) flushLater(t *blockcore.Task) {
	defer f.enter("flush by itself")()
	if f.still && f.policy != blockcore.ChoreRun && f.w.coveredBy(f) != nil {
		f.w.Fail("node %s: work that was to wait or to be forgotten runs while it is quiesced", f.name)
	}
	if f.file != nil {
		_ = f.file.Flush(t) // it serves nobody: an error is not an error
	}
}

// cache keeps writes back. It writes them out when it is asked to flush, after a while, and when a section begins:
// while it is quiesced nothing is kept back, so that it may be taken away.
type cache struct {
	filter

	// Owned by the context.
	dirty   map[int]cellWrite // by cell
	version int
	writing bool // one write-out at a time
	waiters blockcore.WaitQueue
}

func (w *world) newCache(name string) *cache {
	c := &cache{dirty: map[int]cellWrite{}}
	c.rng = w.stream(name)
	c.layer.init(w, name, c)
	return c
}

// ChildPermissions implements blockcore.ChildPermitter: what is kept back is written when no parent writes any more.
func (c *cache) ChildPermissions(_ blockcore.Role, perm, shared blockcore.Permissions) (blockcore.Permissions, blockcore.Permissions) {
	return perm | blockcore.PermWrite, shared
}

// ReadAt implements blockcore.Driver. What was kept back when the read began, or is when it ends, is newer than what is below.
func (c *cache) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	defer c.enter("read")()
	first, n := int(off/simkit.CellBytes), len(p)/simkit.CellBytes
	before := map[int]uint64{}
	for cell := first; cell < first+n; cell++ {
		if kept, ok := c.dirty[cell]; ok {
			before[cell] = kept.tag
		}
	}
	if err := c.file.Read(t, p, off); err != nil {
		return err
	}
	for i := range n {
		at := p[i*simkit.CellBytes : (i+1)*simkit.CellBytes]
		if tag, ok := before[first+i]; ok {
			simkit.Fill(at, tag)
		}
		if kept, ok := c.dirty[first+i]; ok {
			simkit.Fill(at, kept.tag)
		}
	}
	return nil
}

// WriteAt implements blockcore.Writer.
func (c *cache) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	defer c.enter("write")()
	for i := range len(p) / simkit.CellBytes {
		tag, err := simkit.Tag(p[i*simkit.CellBytes : (i+1)*simkit.CellBytes])
		if err != nil {
			c.w.Fail("node %s: write: %v", c.name, err)
		}
		c.keep(int(off/simkit.CellBytes)+i, tag)
	}
	return c.kept(t, flags&blockcore.WriteFUA != 0)
}

// WriteZeroes implements blockcore.Zeroer.
func (c *cache) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	defer c.enter("zero")()
	for cell := r.Offset / simkit.CellBytes; cell < r.End()/simkit.CellBytes; cell++ {
		c.keep(int(cell), 0)
	}
	return c.kept(t, flags&blockcore.ZeroFUA != 0)
}

// Discard implements blockcore.Discarder: it does nothing.
func (c *cache) Discard(*blockcore.Task, blockcore.Range) error {
	defer c.enter("discard")()
	return nil
}

func (c *cache) keep(cell int, tag uint64) {
	c.version++
	c.dirty[cell] = cellWrite{c.version, tag}
}

// kept has what was just kept back written out: now, or later.
func (c *cache) kept(t *blockcore.Task, stable bool) error {
	switch {
	case stable:
		c.writeOut(t)
		return c.file.Flush(t)
	case c.still:
		c.writeOut(t)
	default:
		if c.chore == nil {
			c.chore = c.node.NewChore(blockcore.ChoreRun, c.writeOutLater)
		}
		if !c.chore.Pending() {
			c.chore.After(time.Duration(c.rng.IntN(3000)) * time.Microsecond)
		}
	}
	return nil
}

// Flush implements blockcore.Flusher.
func (c *cache) Flush(t *blockcore.Task) error {
	defer c.enterFlush()()
	if c.file == nil {
		c.mustBeClean("closed")
		return nil
	}
	c.writeOut(t)
	return c.file.Flush(t)
}

func (c *cache) writeOutLater(t *blockcore.Task) {
	defer c.enter("write by itself")()
	if c.file == nil {
		c.mustBeClean("without a child")
		return
	}
	c.writeOut(t)
}

// writeOut writes what is kept back until nothing is, in pieces that others may come between.
func (c *cache) writeOut(t *blockcore.Task) {
	for c.writing {
		t.Wait(&c.waiters)
	}
	c.writing = true
	for cell := 0; len(c.dirty) > 0; cell = (cell + 1) % int(max(c.Size()/simkit.CellBytes, 1)) {
		if kept, ok := c.dirty[cell]; ok {
			c.writeCell(t, cell, kept)
		}
	}
	c.writing = false
	c.waiters.WakeAll()
}

func (c *cache) writeCell(t *blockcore.Task, cell int, kept cellWrite) {
	p := t.Buffers().Get(simkit.CellBytes)
	defer t.Buffers().Put(p)
	simkit.Fill(p, kept.tag)
	for {
		err := c.file.Write(t, p, int64(cell)*simkit.CellBytes, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, errInjected) { // else it is ours to keep until it is stored
			c.w.Fail("node %s cannot write out cell %d: %v", c.name, cell, err)
			break
		}
	}
	if c.dirty[cell].seq == kept.seq {
		delete(c.dirty, cell)
	}
}

func (c *cache) mustBeClean(when string) {
	if len(c.dirty) > 0 {
		c.w.Fail("node %s has %d cells that are written nowhere: %s", c.name, len(c.dirty), when)
	}
}
