package qcow2

import (
	"math"
	"syscall"
	"time"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// cleaner gives the memory of metadata back that nobody uses any more (cache-clean-interval). It runs only while there is something in the caches:
// the first piece that is put there starts it.
type cleaner struct {
	// Changed only by a Tx.
	interval time.Duration // 0 = never

	// Owned by the context.
	chore *blockcore.Chore // nil before the first piece
}

// cleanIntervalDefault is QEMU's on Linux, in seconds.
const cleanIntervalDefault = 600

func cleanInterval(seconds *int64) (time.Duration, error) {
	switch {
	case seconds == nil:
		return cleanIntervalDefault * time.Second, nil
	case *seconds < 0 || *seconds > math.MaxUint32:
		return 0, &format.Error{Errno: syscall.EINVAL, Text: "Cache clean interval too big"}
	}
	return time.Duration(*seconds) * time.Second, nil
}

// cleanLater sees to it that the caches are looked through after a while. The timer stands still in drained sections.
func (i *Image) cleanLater() {
	c := &i.cleaner
	if c.interval == 0 || i.node == nil {
		return
	}
	if c.chore == nil {
		c.chore = i.node.NewChore(blockcore.ChorePostpone, i.cleanCaches)
	}
	if !c.chore.Pending() {
		c.chore.After(c.interval)
	}
}

// cleanCaches drops what was not used since the last visit. What is not on disk yet stays.
func (i *Image) cleanCaches(t *blockcore.Task) {
	i.l2.dropUnused(t)
	i.refs.blocks.dropUnused(t)
	if len(i.l2.pieces)+len(i.refs.blocks.pieces) > 0 {
		i.cleanLater()
	}
}

func (c *cleaner) stop() {
	if c.chore != nil {
		c.chore.Cancel()
	}
}

// dropUnused drops what was used before this round only, and begins the next one. It does not suspend.
func (c *cache) dropUnused(t *blockcore.Task) {
	for p := c.order.prev; p != &c.order && p.round != c.round; {
		before := p.prev
		c.drop(t, p)
		p = before
	}
	c.round++
}
