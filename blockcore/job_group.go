package blockcore

import "slices"

// JobGroup is jobs that succeed or fail together. The zero value is a group without jobs.
//
// Analogous to QEMU's JobTxn.
type JobGroup struct {
	// Guarded by jobs.mu.
	jobs   []*Job
	failed bool // one of them, and so all
	ending bool // somebody completes them
}

// finish runs when the body of a job has returned. It may be long, and ends.
func (j *Job) finish(err error) {
	j.note(err)
	// From now on the job does what it does in the control plane, and a drain that it asks for itself is not to wait for it.
	j.busy.Store(false)
	for _, r := range j.roots {
		r.Settled()
	}
	j.group.advance()
}

// note keeps what the body has returned.
func (j *Job) note(err error) {
	mu := &j.jobs.mu
	mu.Lock()
	defer mu.Unlock()
	if err == nil && j.cancelled {
		err = ErrJobCancelled
	}
	j.err, j.returned, j.loop = err, true, nil
	if err != nil {
		j.become(JobAborting)
	} else {
		j.become(JobWaiting)
	}
}

// advance goes on when the last job of the group has returned. Of two that have returned at once the one that failed may come here as the second.
func (g *JobGroup) advance() {
	mu := &g.jobs[0].jobs.mu
	mu.Lock()
	if g.ending { // of two that have returned at once the other one goes on
		mu.Unlock()
		return
	}
	var cancels []func()
	if slices.ContainsFunc(g.jobs, func(j *Job) bool { return j.err != nil }) {
		cancels = g.fail()
	}
	manual := false
	for _, other := range g.jobs {
		if !other.returned {
			mu.Unlock()
			for _, cancel := range cancels {
				cancel()
			}
			return
		}
		manual = manual || other.manualFinalize
	}
	if !g.failed {
		for _, other := range g.jobs {
			other.become(JobPending)
		}
		if manual {
			mu.Unlock()
			return
		}
	}
	mu.Unlock()
	g.finalize()
}

// fail marks what still runs as cancelled, and returns how to tell it. jobs.mu is held.
func (g *JobGroup) fail() (cancels []func()) {
	if g.failed {
		return nil
	}
	g.failed = true
	for _, other := range g.jobs {
		if other.returned || other.cancelled {
			continue
		}
		if after, _ := other.cancel(); after != nil {
			cancels = append(cancels, after)
		}
	}
	return cancels
}

// abandon aborts a group whose job was cancelled when its body had returned.
func (g *JobGroup) abandon(j *Job) {
	mu := &j.jobs.mu
	mu.Lock()
	if !g.ending { // otherwise it is too late
		j.err = ErrJobCancelled
	}
	mu.Unlock()
	g.advance()
}

// finalize prepares and commits, or aborts, all jobs. Once.
func (g *JobGroup) finalize() {
	mu := &g.jobs[0].jobs.mu
	mu.Lock()
	if g.ending {
		mu.Unlock()
		return
	}
	g.ending = true
	failed := g.failed
	mu.Unlock()
	for _, j := range g.jobs {
		if c, ok := j.body.(JobCompleter); ok && !failed {
			if err := c.Prepare(); err != nil {
				mu.Lock()
				j.err, failed = err, true
				mu.Unlock()
			}
		}
	}
	for _, j := range g.jobs {
		j.conclude(failed)
	}
}

// conclude is the end of a job.
func (j *Job) conclude(failed bool) {
	mu := &j.jobs.mu
	mu.Lock()
	if failed && j.err == nil {
		j.err = ErrJobCancelled
	}
	if failed && j.status != JobAborting {
		j.become(JobAborting)
	}
	mu.Unlock()
	if c, ok := j.body.(JobCompleter); ok {
		if failed {
			c.Abort()
		} else {
			c.Commit()
		}
	}
	for _, r := range j.roots {
		r.Close()
	}
	mu.Lock()
	j.become(JobConcluded)
	mu.Unlock()
	if !j.manualDismiss {
		j.dismiss()
	}
	close(j.concluded)
}
