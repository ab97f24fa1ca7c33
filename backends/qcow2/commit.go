package qcow2

import (
	"errors"
	"fmt"

	"nbd-dataplane/blockcore"
)

// commits makes what has changed in memory durable, one commit at a time. Owned by the context.
type commits struct {
	begun, done uint64
	running     bool
	ended       blockcore.WaitQueue
	err         error // of the last one
	// pending is what was freed since the last commit began.
	pending []freed
}

// Flush makes all writes that have returned durable.
func (i *Image) Flush(t *blockcore.Task) error {
	if i.readOnly {
		return nil
	}
	if err := i.usable(); err != nil {
		return err
	}
	if !i.clean() {
		return i.commit(t)
	}
	if !i.grace.empty() {
		i.reclaim(t)
	}
	return i.sync(t)
}

// clean reports whether nothing has changed in memory that the disk does not have.
func (i *Image) clean() bool {
	return !i.commits.running && !i.unsure && len(i.commits.pending) == 0 && len(i.l2.dirty) == 0 && len(i.l1.dirty) == 0 &&
		(i.lazy || len(i.refs.blocks.dirty) == 0 && len(i.refs.dirty) == 0)
}

// commit waits for a commit that begins after now, and makes it if nobody else does. See the package's comment for the order.
func (i *Image) commit(t *blockcore.Task) error {
	c := &i.commits
	for want := c.begun + 1; c.done < want; {
		if c.running {
			t.Wait(&c.ended)
			if c.done >= want && errors.Is(c.err, blockcore.ErrCancelled) {
				want = c.begun + 1 // who made it was given up, and we were not
			}
			continue
		}
		c.running = true
		c.begun++
		number := c.begun
		c.err = i.commitOnce(t)
		c.running, c.done = false, number
		c.ended.WakeAll()
	}
	return c.err
}

// changeSet is what one commit writes, as it was when the commit began.
type changeSet struct {
	l2        []*table
	l1        *sectors
	pending   []freed
	unordered bool
}

func (i *Image) commitOnce(t *blockcore.Task) error {
	if err := i.writable(); err != nil {
		return err
	}
	if err := i.confirmHeader(t); err != nil {
		return fmt.Errorf("qcow2: write the header: %w", err)
	}
	set := changeSet{l2: i.l2.take(), l1: takeSectors(t, i.l1.dirty, i.l1.entries), pending: i.commits.pending, unordered: i.unordered}
	i.commits.pending, i.unordered = nil, false
	err := i.write(t, &set)
	if err != nil {
		i.takeBack(t, &set)
		return fmt.Errorf("qcow2: write metadata: %w", err)
	}
	i.grace.put(set.pending)
	i.reclaim(t)
	return nil
}

// write writes a set: what is referred to before what refers to it.
func (i *Image) write(t *blockcore.Task, set *changeSet) error {
	if !i.lazy {
		if err := i.writeRefcounts(t); err != nil {
			return err
		}
	}
	changed := len(set.l2) > 0 || set.l1 != nil
	if changed && set.unordered {
		if err := i.sync(t); err != nil {
			return err
		}
	}
	if changed {
		if err := i.l2.write(t, set.l2); err != nil {
			return err
		}
		if err := i.writeSectors(t, set.l1, i.l1.at, i.l1.dirty, metaActiveL1); err != nil {
			return err
		}
	}
	return i.sync(t)
}

// takeBack has what a failed commit took be dirty again.
func (i *Image) takeBack(t *blockcore.Task, set *changeSet) {
	for _, p := range set.l2 {
		i.l2.giveBack(t, p, true)
		i.l2.soilAgain(p)
	}
	set.l1.giveBack(t, i.l1.dirty, true)
	i.commits.pending = append(set.pending, i.commits.pending...)
	i.unordered = i.unordered || set.unordered
}

// writeRefcounts writes all refcounts, and the table that refers to them behind them. It may write what changes meanwhile, too: refcounts go up
// before they are needed and go down after.
func (i *Image) writeRefcounts(t *blockcore.Task) error {
	// As they are now: blocks that become new in the meantime are in the table in memory at once, and must not be seen on disk before they are there.
	entries, at := takeSectors(t, i.refs.dirty, i.refs.table), i.refs.at
	if i.refs.fresh {
		i.refs.fresh = false
		err := i.writeBlocks(t)
		if err == nil {
			err = i.sync(t)
		}
		if err != nil {
			i.refs.fresh = true
			entries.giveBack(t, i.refs.dirty, true)
			return err
		}
	}
	if err := i.writeSectors(t, entries, at, i.refs.dirty, metaRefTable); err != nil {
		return err
	}
	return i.writeBlocks(t)
}

// writeBlocks writes the refcount blocks that have changed. One after the other, so that no block is written twice at the same time.
func (i *Image) writeBlocks(t *blockcore.Task) error {
	if err := i.confirmHeader(t); err != nil { // counts may have gone down of what the other one refers to
		return err
	}
	i.refs.writing.enter(t)
	defer i.refs.writing.leave()
	return i.refs.blocks.write(t, i.refs.blocks.take())
}
