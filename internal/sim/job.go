package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// copyJob is the body of a job: it reads somewhere in a node, compares, and writes what it has read to another one, some times.
type copyJob struct {
	// Immutable.
	w   *world
	rng *rand.Rand
	job *blockcore.Job // set before it starts

	// Owned by the context.
	left int // pieces
}

// Run implements blockcore.JobBody.
func (b *copyJob) Run(t *blockcore.Task, j *blockcore.Job) error {
	for b.left > 0 {
		if err := j.Sleep(t, time.Duration(b.rng.IntN(300))*time.Microsecond); err != nil {
			return err
		}
		if err := b.piece(t, j.Roots()); err != nil && !errors.Is(err, errInjected) {
			return err
		}
		b.left--
		b.w.Progress()
	}
	return j.Checkpoint(t)
}

// piece copies some cells. A section would wait for it.
func (b *copyJob) piece(t *blockcore.Task, roots []*blockcore.Root) error {
	from, to := roots[0], roots[1]
	cells := int(from.Node().Size() / simkit.CellBytes)
	n := min(1+b.rng.IntN(8), cells)
	if n == 0 {
		return nil
	}
	first := b.rng.IntN(cells - n + 1)
	p := t.Buffers().Get(n * simkit.CellBytes)
	defer t.Buffers().Put(p)
	begin := b.w.Tick()
	if err := from.Edge().Read(t, p, int64(first)*simkit.CellBytes); err != nil {
		return err
	}
	source := from.Node().Driver().(driver)
	if d := storeOf(source); d != nil && d.volume != nil && !b.w.hidden(source) { // a cache may have come before the job did
		b.check(d.volume, p, first, begin)
	}
	return to.Edge().Write(t, p, b.rng.Int64N(int64(spareCells-n+1))*simkit.CellBytes, 0)
}

func (b *copyJob) check(v *volume, p []byte, first int, begin int64) {
	now := b.w.Tick()
	for i := range len(p) / simkit.CellBytes {
		tag, err := simkit.Tag(p[i*simkit.CellBytes : (i+1)*simkit.CellBytes])
		if err == nil {
			err = v.check(first+i, tag, begin, now)
		}
		if err != nil {
			b.w.Fail("job %s reads: %v", b.job.ID(), err)
			return
		}
	}
}

// Prepare implements blockcore.JobCompleter.
func (b *copyJob) Prepare() error {
	if b.rng.IntN(5) == 0 {
		return errHalfway
	}
	return nil
}

// Commit implements blockcore.JobCompleter.
func (b *copyJob) Commit() { b.w.Count("job done") }

// Abort implements blockcore.JobCompleter.
func (b *copyJob) Abort() { b.w.Count("job aborted") }

// spareCells is how long a disk is that nobody reads.
const spareCells = 64 * 4

// job sets a job going and goes on to other changes. Another controller waits for its end, and is in its way meanwhile.
func (c *controller) job() {
	w := c.w
	from := c.pickLayer(func(d driver) bool { return isData(d) && !w.hidden(d) })
	if from == nil || w.jobbing > 1 {
		return
	}
	w.jobbing++
	w.launch(w.newName("job"), func(o *controller) {
		o.runJob(from)
		w.jobbing--
	})
}

func (c *controller) runJob(from driver) {
	w := c.w
	spare := w.newDisk(w.newName("spare"), spareCells, nil)
	loop, _ := pick(c.rng, w.Loops)
	err := c.updateWhole("add "+spare.name, func(tx *blockcore.Tx) error {
		_, err := tx.AddNode(blockcore.NodeOptions{Name: spare.name, Context: loop.AioContext, Driver: spare})
		w.enlist(spare)
		return err
	})
	if err != nil {
		w.Fail("disk %s of a job: %v", spare.name, err)
		return
	}
	body := &copyJob{w: w, rng: w.stream(c.name + " body"), left: 1 + c.rng.IntN(12)}
	c.changing(func() {
		nodes := []blockcore.JobNode{{Node: from.common().node}, {Node: spare.node, Takes: blockcore.PermWrite}}
		body.job, err = w.jobs.New(context.Background(), blockcore.JobOptions{ID: c.name, Body: body, Nodes: nodes})
	})
	if err != nil { // its node may have gone, or be on another loop
		w.Count("job refused")
	} else {
		c.attendJob(body.job)
	}
	if err := c.updateWhole("remove "+spare.name, func(tx *blockcore.Tx) error { return c.removeNode(tx, &spare.layer) }); err != nil && !errors.Is(err, errInjected) {
		w.Fail("disk %s of a job cannot be removed: %v", spare.name, err)
	}
	w.delist(spare)
}

// attendJob runs a job from start to end, and pauses or cancels it sometimes.
func (c *controller) attendJob(j *blockcore.Job) {
	w := c.w
	c.changing(func() {
		if err := j.Start(); err != nil {
			w.Fail("job %s does not start: %v", j.ID(), err)
		}
		for range c.rng.IntN(3) {
			c.park(c.duration(2 * time.Millisecond))
			_ = j.Do(blockcore.JobPause) // it may have ended
			c.park(c.duration(2 * time.Millisecond))
			_ = j.Do(blockcore.JobResume)
		}
		if c.rng.IntN(4) == 0 {
			c.park(c.duration(2 * time.Millisecond))
			_ = j.Do(blockcore.JobCancel)
		}
		<-j.Concluded()
	})
	if err := j.Err(); err != nil && !errors.Is(err, blockcore.ErrJobCancelled) && !errors.Is(err, errHalfway) {
		w.Fail("job %s: %v", j.ID(), err)
	}
}

// changing calls what changes the graph on its own, at a moment that nobody here sees.
func (c *controller) changing(fn func()) {
	w := c.w
	w.updating++
	fn()
	c.park(0)
	w.updating--
	w.updated = w.Tick()
}
