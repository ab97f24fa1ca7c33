package blockcore

import (
	"fmt"
	"time"
)

// Start sets a job going that is in state created.
func (j *Job) Start() error {
	j.jobs.mu.Lock()
	if j.status != JobCreated || j.cancelled {
		defer j.jobs.mu.Unlock()
		return fmt.Errorf("Job '%s' in state '%v' cannot be started", j.id, j.status)
	}
	j.become(JobRunning)
	j.jobs.mu.Unlock()
	j.busy.Store(true)
	return j.spawn()
}

// spawn has the body run on the loop where the nodes are.
func (j *Job) spawn() error {
	c := j.place()
	j.jobs.mu.Lock()
	j.loop = c
	j.jobs.mu.Unlock()
	if !c.Post(func() { c.Spawn(BodyFunc(j.run)) }) {
		go j.finish(ErrContextClosed)
		return ErrContextClosed
	}
	return nil
}

// run is the job's Task.
func (j *Job) run(t *Task) {
	err := j.Checkpoint(t)
	if err == nil {
		err = j.body.Run(t, j)
	}
	if err == errJobMoved {
		_ = j.spawn()
		return
	}
	go j.finish(err)
}

// Checkpoint suspends the job while it is paused. It returns an error when the body is to return it at once: the job is cancelled, or has moved to
// another loop. The body has nothing in flight.
func (j *Job) Checkpoint(t *Task) error {
	for {
		again, err := j.look(t)
		if !again {
			j.busy.Store(true)
			return err
		}
		j.busy.Store(false)
		for _, r := range j.roots[:min(1, len(j.roots))] {
			r.Settled()
		}
		t.Wait(&j.queue)
	}
}

// look says whether the job is to wait.
func (j *Job) look(t *Task) (paused bool, err error) {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	switch {
	case j.place() != t.ctx:
		return false, errJobMoved
	case j.cancelled:
		return false, ErrJobCancelled
	}
	if s, ok := pausedIs[j.status]; ok && j.pauses > 0 {
		j.become(s)
	}
	if s, ok := resumedIs[j.status]; ok && j.pauses == 0 {
		j.become(s)
	}
	return j.pauses > 0, nil
}

var (
	pausedIs  = map[JobStatus]JobStatus{JobRunning: JobPaused, JobReady: JobStandby}
	resumedIs = map[JobStatus]JobStatus{JobPaused: JobRunning, JobStandby: JobReady}
)

// Sleep is a checkpoint that takes d, whatever wakes the job meanwhile.
func (j *Job) Sleep(t *Task, d time.Duration) error {
	until := t.Now() + d
	for {
		if err := j.Checkpoint(t); err != nil {
			return err
		}
		left := until - t.Now()
		if left <= 0 {
			return nil
		}
		timer := t.ctx.After(left, func() { j.queue.WakeAll() })
		t.Wait(&j.queue)
		timer.Stop()
	}
}

// Ready says that the job may be told to complete from now on. On its loop.
func (j *Job) Ready() {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	j.become(JobReady)
}

// Completing reports whether the job was told to complete. Safe from anywhere.
func (j *Job) Completing() bool {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	return j.completing
}

// AwaitComplete is a checkpoint that lasts until the job is told to complete.
func (j *Job) AwaitComplete(t *Task) error {
	for {
		if err := j.Checkpoint(t); err != nil {
			return err
		}
		if j.Completing() {
			return nil
		}
		t.Wait(&j.queue)
	}
}

// kick has the job look around, wherever it is. Safe from anywhere.
func (j *Job) kick() {
	j.jobs.mu.Lock()
	c := j.loop
	j.jobs.mu.Unlock()
	if c == nil {
		return
	}
	c.Post(func() {
		j.jobs.mu.Lock()
		here := j.loop == c
		j.jobs.mu.Unlock()
		if !here {
			j.kick() // it has moved meanwhile
			return
		}
		j.queue.WakeAll()
	})
}

// jobOwner stands above one Root of a job. Each section over it pauses the job once.
type jobOwner struct{ job *Job }

var (
	_ Owner   = (*jobOwner)(nil)
	_ Mover   = (*jobOwner)(nil)
	_ Sibling = (*jobOwner)(nil)
)

func (o *jobOwner) Quiesce() {
	o.job.jobs.mu.Lock()
	o.job.pauses++
	o.job.jobs.mu.Unlock()
	o.job.kick()
}

func (o *jobOwner) Busy() bool { return o.job.busy.Load() }

func (o *jobOwner) Resume() {
	o.job.jobs.mu.Lock()
	o.job.pauses--
	o.job.jobs.mu.Unlock()
	o.job.kick()
}

// MayMove is no question: the nodes of a job are on one loop.
func (o *jobOwner) MayMove(*AioContext) error { return nil }

// Detach has the job, which is paused, leave its Task: it is kicked, finds itself on another loop, and is called again there.
func (o *jobOwner) Detach(*AioContext) { o.job.kick() }

func (o *jobOwner) Attach(*AioContext) {}

// Siblings has all nodes of a job move together.
func (o *jobOwner) Siblings() []*Root {
	o.job.jobs.mu.Lock()
	defer o.job.jobs.mu.Unlock()
	return o.job.roots
}
