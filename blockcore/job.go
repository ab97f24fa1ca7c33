package blockcore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Job is long work on nodes under the eyes of an operator: a copy, a commit. It may be paused, by the operator and by every drained section
// over one of its nodes, told to complete, and cancelled.
//
// Its body runs on the loop of its nodes and does I/O through the Edges of its Roots, without Begin: between two
// checkpoints the job is busy as a whole, and a drain waits for the next one. What completes it, a change of the graph most of the time, runs in the
// control plane, when its body has returned.
//
//	created -> running <-> paused
//	              |
//	              v
//	            ready <-> standby
//	              |
//	              v
//	           waiting -> pending -> concluded -> null
//
// From each of them but the last three a failure or a cancellation leads to aborting, and from there to concluded.
//
// Analogous to QEMU's Job and BlockJob.
type Job struct {
	// Immutable.
	jobs  *Jobs
	id    string
	kind  string
	body  JobBody
	group *JobGroup
	home  *AioContext // of a job without nodes
	// manualFinalize has a job that is done wait for Finalize, manualDismiss one that is concluded for Dismiss.
	manualFinalize, manualDismiss bool
	concluded                     chan struct{} // closed when it is

	// Owned by the context.
	queue WaitQueue // its Task, at a checkpoint or asleep

	// Guarded by jobs.mu.
	roots      []*Root // set once, before anything else happens
	status     JobStatus
	pauses     int // sections over its Roots, and the operator's pause
	userPaused bool
	completing bool        // Complete was called
	cancelled  bool        // Cancel was called
	returned   bool        // the body will not run any more
	loop       *AioContext // where its Task is; nil = there is none
	err        error

	// Safe from anywhere.
	busy atomic.Bool // under way between two checkpoints
}

// JobBody is what a job does.
type JobBody interface {
	// Run does the work. It calls j.Checkpoint often, where it has nothing in flight, and returns its error at once. After a move to another
	// AioContext it is called again there, and goes on where it was.
	Run(t *Task, j *Job) error
}

// JobCompleter is a JobBody with something to do at the end, in the control plane: it may drain and change the graph. Default: nothing.
type JobCompleter interface {
	// Prepare is the last chance to fail, for all jobs of a group.
	Prepare() error
	// Commit follows when all have prepared, Abort when one of them failed or was cancelled.
	Commit()
	Abort()
}

// JobOptions describe a new job.
type JobOptions struct {
	ID    string
	Type  string // "mirror", "backup"
	Body  JobBody
	Nodes []JobNode // the first is the one whose loop it runs on
	// Context is where a job without nodes runs.
	Context *AioContext
	// Group completes jobs together; nil = this one alone.
	Group                         *JobGroup
	ManualFinalize, ManualDismiss bool
}

// JobNode is a node that a job uses.
type JobNode struct {
	Node  *Node
	Takes Permissions
	// Unshared permissions are kept from everybody else.
	Unshared Permissions
}

// Jobs are the jobs on a graph.
type Jobs struct {
	// Immutable.
	graph *Graph

	// Guarded by mu.
	mu   sync.Mutex
	byID map[string]*Job
}

// NewJobs returns an empty set.
func NewJobs(g *Graph) *Jobs { return &Jobs{graph: g, byID: map[string]*Job{}} }

// ErrJobCancelled is what a job ends with that was cancelled, itself or with its group.
var ErrJobCancelled = errors.New("job was cancelled")

// errJobMoved has the body return, to be called again on another loop.
var errJobMoved = errors.New("job has moved to another AioContext")

// New makes a job, which Start sets going. Not on a loop.
func (js *Jobs) New(ctx context.Context, o JobOptions) (*Job, error) {
	j := &Job{
		jobs: js, id: o.ID, kind: o.Type, body: o.Body, group: o.Group, home: o.Context, manualFinalize: o.ManualFinalize, manualDismiss: o.ManualDismiss,
		concluded: make(chan struct{}),
	}
	if j.group == nil {
		j.group = &JobGroup{}
	}
	if err := js.enlist(j); err != nil {
		return nil, err
	}
	err := js.attach(ctx, j, o.Nodes)
	if err != nil {
		js.delist(j)
		return nil, err
	}
	js.mu.Lock()
	j.group.jobs = append(j.group.jobs, j)
	j.become(JobCreated)
	js.mu.Unlock()
	return j, nil
}

// attach makes the Roots of a job.
func (js *Jobs) attach(ctx context.Context, j *Job, nodes []JobNode) error {
	if len(nodes) == 0 {
		return nil
	}
	return js.graph.Update(ctx, "job "+j.id, func(tx *Tx) error {
		var roots []*Root
		for _, use := range nodes {
			if err := tx.bring(use.Node, nodes[0].Node.Context()); err != nil {
				return err
			}
			r, err := tx.NewRoot(use.Node, RootOptions{Name: j.id, Permissions: use.Takes, Unshared: use.Unshared, Owner: &jobOwner{job: j}})
			if err != nil {
				return err
			}
			roots = append(roots, r)
		}
		js.mu.Lock()
		defer js.mu.Unlock()
		j.roots = roots
		return nil
	})
}

// place is where the job belongs now.
func (j *Job) place() *AioContext {
	if len(j.roots) == 0 {
		return j.home
	}
	return j.roots[0].Context()
}

func (js *Jobs) enlist(j *Job) error {
	js.mu.Lock()
	defer js.mu.Unlock()
	if !IsIdentifier(j.id) {
		return fmt.Errorf("Invalid job ID '%s'", j.id)
	}
	if js.byID[j.id] != nil {
		return fmt.Errorf("Job ID '%s' already in use", j.id)
	}
	js.byID[j.id] = j
	return nil
}

func (js *Jobs) delist(j *Job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	delete(js.byID, j.id)
}

// Find returns the job of that id. Safe from anywhere.
func (js *Jobs) Find(id string) (*Job, error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j := js.byID[id]; j != nil {
		return j, nil
	}
	return nil, errors.New("Job not found")
}

// All returns the jobs by id. Safe from anywhere.
func (js *Jobs) All() []*Job {
	js.mu.Lock()
	defer js.mu.Unlock()
	all := make([]*Job, 0, len(js.byID))
	for _, j := range js.byID {
		all = append(all, j)
	}
	slices.SortFunc(all, func(a, b *Job) int { return cmp.Compare(a.id, b.id) })
	return all
}

// ID returns the name given at creation. Safe from anywhere.
func (j *Job) ID() string { return j.id }

// Type returns what kind of job it is. Safe from anywhere.
func (j *Job) Type() string { return j.kind }

// Roots returns the handles on the nodes, in the order of JobOptions. Safe from anywhere.
func (j *Job) Roots() []*Root { return j.roots }

// Status returns where the job is in its life. Safe from anywhere.
func (j *Job) Status() JobStatus {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	return j.status
}

// Pauses returns how many sections and operators have the job paused. Safe from anywhere.
func (j *Job) Pauses() int {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	return j.pauses
}

// Wait returns the result once the job is concluded. Not on a loop.
func (j *Job) Wait(ctx context.Context) error {
	select {
	case <-j.concluded:
		return j.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Concluded is closed when the job has ended, in whatever way. Safe from anywhere.
func (j *Job) Concluded() <-chan struct{} { return j.concluded }

// Err returns why the job failed, as far as is known. Safe from anywhere.
func (j *Job) Err() error {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	return j.err
}

// become changes the status. jobs.mu is held.
func (j *Job) become(s JobStatus) {
	j.status = s
	j.jobs.graph.emit(JobStatusChanged{ID: j.id, Status: s})
}
