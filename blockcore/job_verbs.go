package blockcore

import (
	"errors"
	"fmt"
)

// JobStatus is where a job is in its life, in QEMU's words.
type JobStatus uint8

// The states.
const (
	JobUndefined JobStatus = iota
	JobCreated
	JobRunning
	JobPaused
	JobReady
	JobStandby
	JobWaiting
	JobPending
	JobAborting
	JobConcluded
	JobNull
)

var jobStatusNames = [...]string{
	"undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting", "concluded", "null",
}

func (s JobStatus) String() string { return jobStatusNames[s] }

// JobVerb is what an operator may ask of a job, in QEMU's words.
type JobVerb uint8

// The verbs.
const (
	JobCancel JobVerb = iota
	JobPause
	JobResume
	JobComplete
	JobFinalize
	JobDismiss
)

var jobVerbNames = [...]string{"cancel", "pause", "resume", "complete", "finalize", "dismiss"}

func (v JobVerb) String() string { return jobVerbNames[v] }

// jobVerbs says in which states each verb is taken.
var jobVerbs = [...]struct{ from, to JobStatus }{
	JobCancel:   {JobCreated, JobPending},
	JobPause:    {JobCreated, JobStandby},
	JobResume:   {JobCreated, JobStandby},
	JobComplete: {JobReady, JobStandby},
	JobFinalize: {JobPending, JobPending},
	JobDismiss:  {JobConcluded, JobConcluded},
}

// allows refuses a verb that the state does not take. jobs.mu is held.
func (j *Job) allows(v JobVerb) error {
	if v == JobResume && !j.userPaused { // QEMU looks at that first
		return errors.New("Can't resume a job that was not paused")
	}
	if row := jobVerbs[v]; j.status < row.from || j.status > row.to {
		return fmt.Errorf("Job '%s' in state '%v' cannot accept command verb '%v'", j.id, j.status, v)
	}
	return nil
}

// Do is what an operator asks of the job. Not on a loop: what completes a job may run in it.
func (j *Job) Do(v JobVerb) error {
	j.jobs.mu.Lock()
	err := j.allows(v)
	var after func()
	if err == nil {
		after, err = jobActions[v](j)
	}
	j.jobs.mu.Unlock()
	if err == nil && after != nil {
		after()
	}
	return err
}

// jobActions do what a verb says. jobs.mu is held, but not by what they return to be done afterwards.
var jobActions = [...]func(j *Job) (after func(), err error){
	JobCancel:   (*Job).cancel,
	JobPause:    (*Job).pause,
	JobResume:   (*Job).resume,
	JobComplete: (*Job).complete,
	JobFinalize: func(j *Job) (func(), error) { return j.group.finalize, nil },
	JobDismiss:  func(j *Job) (func(), error) { return j.dismiss, nil },
}

func (j *Job) pause() (func(), error) {
	if j.userPaused {
		return nil, errors.New("Job is already paused")
	}
	j.userPaused = true
	j.pauses++
	return j.kick, nil
}

func (j *Job) resume() (func(), error) {
	j.userPaused = false
	j.pauses--
	return j.kick, nil
}

// complete ends a job that is ready.
func (j *Job) complete() (func(), error) {
	if j.cancelled {
		return nil, fmt.Errorf("The active block job '%s' cannot be completed", j.id)
	}
	j.completing = true
	return j.kick, nil
}

// cancel ends a job as soon as it looks. One that has no body running any more is aborted at once.
func (j *Job) cancel() (func(), error) {
	if j.group.ending {
		return nil, fmt.Errorf("Job '%s' is being completed and cannot be cancelled", j.id)
	}
	j.cancelled = true
	if j.userPaused {
		j.userPaused = false
		j.pauses--
	}
	if j.status == JobCreated {
		return func() { j.finish(ErrJobCancelled) }, nil
	}
	if j.returned {
		return func() { j.group.abandon(j) }, nil
	}
	return j.kick, nil
}

// dismiss forgets a job that is concluded.
func (j *Job) dismiss() {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	if j.status == JobConcluded {
		j.become(JobNull)
		delete(j.jobs.byID, j.id)
	}
}
