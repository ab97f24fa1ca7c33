package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// controller is a goroutine of the control plane. After each call of blockcore it parks until the scheduler chooses it.
type controller struct {
	w      *world
	name   string
	rng    *rand.Rand
	thread *simkit.Thread

	sections []*section // to be ended later
	attends  int        // nodes that the Update under way removes or resizes
}

func (w *world) newController(name string) *controller {
	w.mu.Lock()
	w.unparked++
	w.solo = false
	w.mu.Unlock()
	return &controller{w: w, name: name, rng: w.stream(name), thread: w.NewThread(name)}
}

// launch starts a controller.
func (w *world) launch(name string, body func(*controller)) {
	c := w.newController(name)
	go c.live(body)
}

// live runs body and ends with it.
func (c *controller) live(body func(*controller)) {
	defer c.finish()
	defer c.w.Rescue(c.name)
	c.park(0)
	body(c)
}

func (c *controller) finish() {
	c.w.mu.Lock()
	c.w.unparked--
	c.w.mu.Unlock()
}

// park lets the scheduler decide when to go on, not before rest has passed.
func (c *controller) park(rest time.Duration) {
	w := c.w
	w.mu.Lock()
	w.unparked--
	w.mu.Unlock()
	c.thread.Park(context.Background(), rest)
}

func (c *controller) duration(most time.Duration) time.Duration {
	return time.Duration(c.rng.Int64N(int64(most)))
}

// main builds the graph, has the others change it, and takes it down.
func (c *controller) main() {
	w := c.w
	for range 1 + c.rng.IntN(3) {
		c.addVolume()
	}
	for range 2 + c.rng.IntN(4) {
		c.open()
	}
	n := 1 + c.rng.IntN(4)
	w.workers = n
	for i := range n {
		w.launch(fmt.Sprintf("control%d", i), (*controller).work)
	}
	for w.workers+w.jobbing > 0 {
		c.park(time.Millisecond)
	}
	c.takeDown()
	w.Ended = true
}

// change is one kind of thing that a controller does.
type change struct {
	name   string
	weight int
	do     func(*controller)
}

// work makes changes, and lets time pass between them.
func (c *controller) work() {
	for range c.w.cfg.Changes {
		c.park(c.pause())
		change := c.drawChange()
		if c.w.cfg.Without[change.name] {
			continue
		}
		c.w.Log("%s: %s", c.name, change.name)
		change.do(c)
		c.w.Progress()
		for len(c.sections) > 0 && c.rng.IntN(3) == 0 {
			c.endOne()
		}
	}
	for len(c.sections) > 0 {
		c.endOne()
	}
	c.w.workers--
}

func (c *controller) pause() time.Duration {
	if c.rng.IntN(3) > 0 {
		return 0
	}
	return c.duration(2 * time.Millisecond)
}

func (c *controller) drawChange() change {
	total := 0
	for _, one := range changes {
		total += one.weight
	}
	n := c.rng.IntN(total)
	for _, one := range changes {
		if n < one.weight {
			return one
		}
		n -= one.weight
	}
	panic("unreachable")
}

// endOne ends one of the sections that are held, in any order.
func (c *controller) endOne() {
	i := c.rng.IntN(len(c.sections))
	s := c.sections[i]
	c.sections = append(c.sections[:i:i], c.sections[i+1:]...)
	c.end(s)
}

// errHalfway has a change fail when part of it is done.
var errHalfway = errors.New("the seed wants this change to fail half way")

// update is Graph.Update, with a stop before the change begins and one after it.
func (c *controller) update(why string, fn func(tx *blockcore.Tx) error) error {
	return c.updateWhole(why, func(tx *blockcore.Tx) error {
		err := fn(tx)
		if err == nil && c.rng.IntN(6) == 0 {
			err = errHalfway
		}
		return err
	})
}

// updateWhole is update for what cannot be undone.
func (c *controller) updateWhole(why string, fn func(tx *blockcore.Tx) error) error {
	w := c.w
	err := w.graph.Update(context.Background(), why, func(tx *blockcore.Tx) error {
		c.park(0)
		w.updating++
		w.updated = w.Tick()
		return fn(tx)
	})
	// What a change tells the loops is told when it ends.
	c.park(0)
	w.attended -= c.attends
	c.attends = 0
	w.updating--
	w.updated = w.Tick()
	w.Log("%s: %s: %v", c.name, why, err)
	if err != nil {
		w.Count("change failed")
	} else {
		w.Count("change done")
	}
	return err
}

// within runs fn in a section over layers; long sections settle always.
func (c *controller) within(why string, layers []*layer, fn func(s *section)) {
	s := c.drain(&section{name: c.w.newName(why + " "), layers: layers}, drainMax)
	if s == nil {
		return
	}
	if c.rng.IntN(3) == 0 {
		c.park(c.duration(time.Millisecond))
	}
	fn(s)
	c.end(s)
}
