package blockcore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bodyFunc is a job that is a function, and notes how it ends.
type bodyFunc struct {
	run               func(t *Task, j *Job) error
	prepare           error
	committed, undone atomic.Bool
}

func (b *bodyFunc) Run(t *Task, j *Job) error { return b.run(t, j) }
func (b *bodyFunc) Prepare() error            { return b.prepare }
func (b *bodyFunc) Commit()                   { b.committed.Store(true) }
func (b *bodyFunc) Abort()                    { b.undone.Store(true) }

// untilCancelled is a job that does not end by itself.
func untilCancelled(t *Task, j *Job) error {
	for {
		if err := j.Sleep(t, time.Hour); err != nil {
			return err
		}
	}
}

func TestJobGroups_T_J10_T_J11_T_J12_T_J13_T_J14_T_J15_T_J16(t *testing.T) {
	// The jobs of a group succeed or fail together: a table of what each job does, in either order, and with what it ends. "cancel" does not
	// end by itself and is cancelled; "last" is done in the moment in which its partner is cancelled.
	c := newTestContext(t, ContextOptions{})
	failure := errors.New("failed")
	table := []struct {
		id    string
		does  []string
		wants []error
	}{
		{"T-J10", []string{"succeed"}, []error{nil}},
		{"T-J11", []string{"fail"}, []error{failure}},
		{"T-J12", []string{"cancel"}, []error{ErrJobCancelled}},
		{"T-J13", []string{"succeed", "succeed"}, []error{nil, nil}},
		{"T-J14", []string{"succeed", "fail"}, []error{ErrJobCancelled, failure}},
		{"T-J14", []string{"fail", "succeed"}, []error{failure, ErrJobCancelled}},
		{"T-J14", []string{"fail", "stay"}, []error{failure, ErrJobCancelled}},
		{"T-J14", []string{"refuse", "succeed"}, []error{failure, ErrJobCancelled}},
		{"T-J15", []string{"stay", "cancel"}, []error{ErrJobCancelled, ErrJobCancelled}},
		{"T-J15", []string{"cancel", "stay"}, []error{ErrJobCancelled, ErrJobCancelled}},
		{"T-J16", []string{"cancel", "last"}, []error{ErrJobCancelled, ErrJobCancelled}},
	}
	for _, row := range table {
		t.Run(fmt.Sprint(row.id, row.does), func(t *testing.T) {
			g, n := newDisk(t, c)
			jobs, group := NewJobs(g), &JobGroup{}
			var all []*Job
			var bodies []*bodyFunc
			var partnerGone atomic.Bool
			for i, does := range row.does {
				b := &bodyFunc{run: untilCancelled}
				switch does {
				case "succeed":
					b.run = func(*Task, *Job) error { return nil }
				case "fail":
					b.run = func(*Task, *Job) error { return failure }
				case "refuse":
					b.run = func(*Task, *Job) error { return nil }
					b.prepare = failure
				case "last":
					b.run = func(t *Task, _ *Job) error {
						for !partnerGone.Load() {
							t.Yield()
						}
						return nil
					}
				}
				j, err := jobs.New(t.Context(), JobOptions{ID: fmt.Sprintf("job%d", i), Body: b, Nodes: []JobNode{{Node: n}}, Group: group})
				require.NoError(t, err)
				all, bodies = append(all, j), append(bodies, b)
			}
			for _, j := range all {
				if err := j.Start(); err != nil {
					require.ErrorIs(t, j.Wait(t.Context()), ErrJobCancelled) // the partner has failed already
				}
			}
			for i, does := range row.does {
				if does == "cancel" {
					require.NoError(t, all[i].Do(JobCancel))
					partnerGone.Store(true)
				}
			}
			for i, j := range all {
				err := j.Wait(t.Context())
				require.True(t, errors.Is(err, row.wants[i]) || err == nil && row.wants[i] == nil, "job %d: %v", i, err)
				require.Equal(t, JobNull, j.Status())
				require.Equal(t, row.wants[i] == nil, bodies[i].committed.Load())
				require.Equal(t, row.wants[i] != nil, bodies[i].undone.Load())
			}
			require.Empty(t, jobs.All())
			require.Empty(t, g.Roots())
			require.NoError(t, g.RemoveNode(n))
		})
	}
}

func TestJobsThatReturnAtOnce(t *testing.T) {
	// A group whose last two jobs return in the same moment, one of them with a failure, fails, whichever comes first to say so: what each has returned is noted,
	// and then the one that succeeded has the group go on.
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	jobs, group := NewJobs(g), &JobGroup{}
	var all []*Job
	for _, id := range []string{"good", "bad"} {
		j, err := jobs.New(t.Context(), JobOptions{ID: id, Body: &bodyFunc{}, Nodes: []JobNode{{Node: n}}, Group: group})
		require.NoError(t, err)
		j.status = JobRunning
		all = append(all, j)
	}
	failure := errors.New("failed")
	all[0].note(nil)
	all[1].note(failure)
	group.advance()
	require.ErrorIs(t, all[0].Wait(t.Context()), ErrJobCancelled)
	require.ErrorIs(t, all[1].Wait(t.Context()), failure)
	group.advance()
	require.NoError(t, g.RemoveNode(n))
}

func TestJobStates_T_J3_T_J7_T_J8(t *testing.T) {
	// A job can be cancelled where it runs and where it waits to be finalized, and a concluded one is dismissed: the calls of QEMU's test, and the
	// result of each.
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	jobs := NewJobs(g)
	start := func(run func(*Task, *Job) error) *Job {
		j, err := jobs.New(t.Context(), JobOptions{ID: "j", Body: &bodyFunc{run: run}, Nodes: []JobNode{{Node: n}}, ManualFinalize: true, ManualDismiss: true})
		require.NoError(t, err)
		require.NoError(t, j.Start())
		return j
	}
	running := start(untilCancelled)
	require.Equal(t, JobRunning, running.Status())
	require.NoError(t, running.Do(JobCancel))
	require.ErrorIs(t, running.Wait(t.Context()), ErrJobCancelled)
	require.NoError(t, running.Do(JobDismiss))

	pending := start(func(*Task, *Job) error { return nil })
	until(func() bool { return pending.Status() == JobPending })
	require.EqualError(t, pending.Do(JobDismiss), "Job 'j' in state 'pending' cannot accept command verb 'dismiss'")
	require.NoError(t, pending.Do(JobCancel))
	require.ErrorIs(t, pending.Wait(t.Context()), ErrJobCancelled)
	require.Equal(t, JobConcluded, pending.Status())
	require.NoError(t, pending.Do(JobDismiss))

	done := start(func(*Task, *Job) error { return nil })
	until(func() bool { return done.Status() == JobPending })
	require.NoError(t, done.Do(JobFinalize))
	require.NoError(t, done.Wait(t.Context()))
	require.Error(t, done.Do(JobCancel))
	require.NoError(t, done.Do(JobDismiss))
	require.Equal(t, JobNull, done.Status())
}

func TestJobSleepsOnAfterASection(t *testing.T) {
	// A section wakes a job that sleeps, and it sleeps on for the rest of its time afterwards and no longer (018e5987b5): on a clock that the test moves,
	// a sleep of ten seconds with sections in between.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	var woke atomic.Int64
	j := &Job{jobs: NewJobs(NewGraph())}
	r := newRootOn(t, l.AioContext)
	j.roots, j.loop, j.status = []*Root{r}, l.AioContext, JobRunning
	owner := &jobOwner{job: j}
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) {
			if err := j.Sleep(t, 10*time.Second); err != nil {
				return
			}
			woke.Store(int64(t.Now()))
		}))
	})
	began := l.time.now()
	for range 4 {
		l.during(owner.Quiesce)
		l.resume(0)
		require.False(t, owner.Busy())
		require.Equal(t, JobPaused, j.Status())
		l.resume(time.Second)
		l.during(owner.Resume)
		l.resume(0)
		require.Equal(t, JobRunning, j.Status())
		l.resume(time.Second)
	}
	require.Zero(t, woke.Load())
	l.resume(2 * time.Second)
	require.InDelta(t, int64(began+10*time.Second), woke.Load(), float64(time.Millisecond))
}

func TestJobsUnderDrains(t *testing.T) {
	// A job does nothing in a drained section, and every section comes to its end, whatever the job is at: jobs that read, sleep and complete, and drain at their end
	// themselves (T-X11), under drains and moves at random.
	rng := newRand(t)
	main, io := newTestContext(t, ContextOptions{}), newTestContext(t, ContextOptions{})
	g, n := newDisk(t, main)
	jobs := NewJobs(g)
	var quiet, broken atomic.Bool
	for round := range 200 {
		reads := rng.IntN(20)
		body := &drainer{graph: g, node: n}
		body.run = func(t *Task, j *Job) error {
			for ; reads > 0; reads-- {
				p := t.Buffers().Get(512)
				broken.Store(broken.Load() || quiet.Load())
				err := j.Roots()[0].Edge().Read(t, p, 0)
				t.Yield()
				broken.Store(broken.Load() || quiet.Load())
				t.Buffers().Put(p)
				if err == nil {
					err = j.Sleep(t, time.Duration(reads%3)*10*time.Microsecond)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
		j, err := jobs.New(t.Context(), JobOptions{ID: "j", Body: body, Nodes: []JobNode{{Node: n}}})
		require.NoError(t, err)
		require.NoError(t, j.Start())
		for range rng.IntN(4) {
			if rng.IntN(4) == 0 {
				require.NoError(t, g.Move(t.Context(), n, []*AioContext{main, io}[rng.IntN(2)]))
			}
			spin(rand.New(rand.NewPCG(rng.Uint64(), 1)))
			d, err := g.Drain(t.Context(), DrainOptions{Nodes: []*Node{n}})
			require.NoError(t, err, "round %d", round)
			quiet.Store(true)
			spin(rng)
			quiet.Store(false)
			d.End()
		}
		if rng.IntN(3) == 0 {
			_ = j.Do(JobCancel)
		}
		if err := j.Wait(t.Context()); err != nil {
			require.ErrorIs(t, err, ErrJobCancelled)
		}
		require.NoError(t, body.failed)
	}
	require.False(t, broken.Load(), "a job worked in a drained section")
	require.Zero(t, n.Quiesced())
}

// drainer is a job that drains its node when it ends.
type drainer struct {
	bodyFunc
	graph  *Graph
	node   *Node
	failed error
}

func (d *drainer) Prepare() error {
	section, err := d.graph.Drain(context.Background(), DrainOptions{Nodes: []*Node{d.node}})
	if err != nil {
		d.failed = err
		return err
	}
	section.End()
	return nil
}

func TestDrainFromATask_T_D3_T_D4_T_D7_T_D8_T_X11(t *testing.T) {
	// A Task that wants a drain hands it to the control plane: from its own request's completion, where it has nothing in flight any more, the drain waits for the
	// requests of others and the Task finds everything quiet; so do two of them that nest, and a drain of everything.
	onEngines(t, func(t *testing.T, c *AioContext) {
		r := newRootOn(t, c)
		for _, o := range []DrainOptions{{All: true}, {Nodes: []*Node{r.Node()}}} {
			var g gate
			var other atomic.Bool
			onLoop(t, c, func() {
				c.Spawn(BodyFunc(func(t *Task) {
					var k Ticket
					r.Begin(t, &k)
					t.Wait(&g.q)
					other.Store(true)
					r.End(t, &k)
				}))
			})
			do(t, c, func(t *Task) error {
				var k Ticket
				r.Begin(t, &k)
				p := t.Buffers().Get(512)
				err := r.Edge().Read(t, p, 0)
				t.Buffers().Put(p)
				r.End(t, &k)
				if err != nil {
					return err
				}
				c.Spawn(BodyFunc(func(t *Task) {
					for !r.Still() {
						t.Yield()
					}
					g.q.WakeAll()
				}))
				var outer, inner *Drained
				if err := t.Control(func() (err error) {
					if outer, err = r.graph.Drain(context.Background(), o); err != nil {
						return err
					}
					inner, err = r.graph.Drain(context.Background(), o)
					return err
				}); err != nil {
					return err
				}
				if r.Node().Quiesced() != 2 || !other.Load() || r.InFlight() != 0 {
					return syscall.EBUSY
				}
				inner.End() // from the loop itself
				outer.End()
				return nil
			})
			require.Zero(t, r.Node().Quiesced())
		}
	})
}

// slowBody is a job whose completion waits to be let go on.
type slowBody struct {
	bodyFunc
	preparing, goOn chan struct{}
}

func (b *slowBody) Prepare() error {
	close(b.preparing)
	<-b.goOn
	return nil
}

func TestJobIsNotCancelledWhileItCompletes(t *testing.T) {
	// Goal: a job that has taken effect does not say that it was cancelled. Method: it is cancelled between Prepare and Commit.
	b := &slowBody{preparing: make(chan struct{}), goOn: make(chan struct{})}
	b.run = func(*Task, *Job) error { return nil }
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	j, err := NewJobs(g).New(t.Context(), JobOptions{ID: "j", Body: b, Nodes: []JobNode{{Node: n}}})
	require.NoError(t, err)
	require.NoError(t, j.Start())
	<-b.preparing
	require.ErrorContains(t, j.Do(JobCancel), "cannot be cancelled")
	close(b.goOn)
	require.NoError(t, j.Wait(t.Context()))
	require.True(t, b.committed.Load())
}

func TestJobsOfAGroupEndOnce(t *testing.T) {
	// Goal: jobs that end at the same moment are completed by one of them, and stay where they are then. Method: the other one comes late.
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	jobs, group := NewJobs(g), &JobGroup{}
	var all []*Job
	for _, id := range []string{"a", "b"} {
		j, err := jobs.New(t.Context(), JobOptions{ID: id, Group: group, ManualDismiss: true, Nodes: []JobNode{{Node: n}},
			Body: &bodyFunc{run: func(*Task, *Job) error { return nil }}})
		require.NoError(t, err)
		all = append(all, j)
	}
	for _, j := range all {
		require.NoError(t, j.Start())
	}
	for _, j := range all {
		require.NoError(t, j.Wait(t.Context()))
	}
	group.advance()
	require.Equal(t, JobConcluded, all[0].Status())
	require.Equal(t, JobConcluded, all[1].Status())
}
