package blockcore

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patientDisk answers nothing before it is told to, but to those who are unwanted.
type patientDisk struct {
	*memory

	// Owned by the context.
	node    *Node
	open    bool
	waiting WaitQueue
	waits   int
}

func (d *patientDisk) SetNode(n *Node) { d.node = n }

func (d *patientDisk) ReadAt(t *Task, p []byte, off int64) error {
	for !d.open {
		if d.node.Unwanted(t) {
			return ErrCancelled
		}
		d.waits++
		t.Wait(&d.waiting)
		d.waits--
	}
	return d.memory.ReadAt(t, p, off)
}

func (d *patientDisk) Cancel() { d.waiting.WakeAll() }

// passage hands requests down. Without alone they may depend on each other.
type passage struct {
	Filter
	alone bool
}

func (p *passage) Features() Features {
	is := p.Filter.Features()
	is.Independent = p.alone
	return is
}

// reader is a client in the tests of Cancel.
type reader string

func (r reader) String() string { return string(r) }

// read begins a request of who on r and returns where its result comes.
func (who reader) read(t *testing.T, r *Root) chan error {
	t.Helper()
	done := make(chan error, 1)
	require.True(t, r.Context().Post(func() {
		r.Context().Spawn(BodyFunc(func(t *Task) {
			k := Ticket{Op: "read", Client: who}
			r.Begin(t, &k)
			buf := t.Buffers().Get(512)
			err := r.Edge().Read(t, buf, 0)
			t.Buffers().Put(buf)
			r.End(t, &k)
			done <- err
		}))
	}))
	return done
}

// cancelScene is a patient disk, on which two Roots stand directly, and two others above a passage each.
type cancelScene struct {
	t              *testing.T
	ctx            *AioContext
	disk           *patientDisk
	g              *Graph
	a, b           *Root // on the disk
	through, other *Root // each on a passage of its own
}

func newCancelScene(t *testing.T, c *AioContext, alone bool) *cancelScene {
	s := &cancelScene{t: t, ctx: c, disk: &patientDisk{memory: newMemory(4096, Limits{Align: 1})}, g: NewGraph()}
	n, err := s.g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: s.disk})
	require.NoError(t, err)
	root := func(name string, on *Node) *Root {
		r, err := s.g.NewRoot(on, RootOptions{Name: name})
		require.NoError(t, err)
		return r
	}
	s.a, s.b = root("a", n), root("b", n)
	over := func(name string) *Root {
		p, err := s.g.AddNode(NodeOptions{Name: name, Driver: &passage{alone: alone}, Children: []ChildOptions{{RoleFile, n}}})
		require.NoError(t, err)
		return root("of "+name, p)
	}
	s.through, s.other = over("p1"), over("p2")
	t.Cleanup(func() {
		for _, r := range []*Root{s.a, s.b, s.through, s.other} {
			r.Close()
		}
		require.NoError(t, s.g.RemoveNodes())
	})
	return s
}

// settled waits until so many requests wait in the disk, and all that could end has.
func (s *cancelScene) settled(waits int) {
	s.t.Helper()
	do(s.t, s.ctx, func(t *Task) error {
		for range 1000 {
			t.Yield()
		}
		if s.disk.waits != waits {
			return errors.New("others wait than should")
		}
		return nil
	})
}

func (s *cancelScene) cancel(r *Root, who reader) {
	s.t.Helper()
	done := make(chan struct{})
	require.True(s.t, s.ctx.Post(func() { r.Cancel(who); close(done) }))
	<-done
}

// finish has the disk answer and requires that those who are left are answered and nothing is counted as unwanted.
func (s *cancelScene) finish(left ...chan error) {
	s.t.Helper()
	require.True(s.t, s.ctx.Post(func() { s.disk.open = true; s.disk.waiting.WakeAll() }))
	for _, done := range left {
		require.NoError(s.t, <-done)
	}
	do(s.t, s.ctx, func(*Task) error {
		if s.ctx.unwanted != 0 {
			return errors.New("somebody is counted as unwanted")
		}
		return nil
	})
}

func TestCancelOfOneClient(t *testing.T) {
	// Of several clients that stand on a disk themselves, or by way of nodes that pass each request on alone, the requests of one end, and no others.
	onEngines(t, func(t *testing.T, c *AioContext) {
		s := newCancelScene(t, c, true)
		goes, elsewhere, stays := reader("x").read(t, s.a), reader("x").read(t, s.b), reader("y").read(t, s.a)
		through, beside := reader("x").read(t, s.through), reader("y").read(t, s.through)
		s.settled(5)
		s.cancel(s.a, "x")
		require.ErrorIs(t, <-goes, ErrCancelled)
		s.settled(4)
		s.cancel(s.through, "x")
		require.ErrorIs(t, <-through, ErrCancelled)
		s.settled(3)
		require.EqualValues(t, 1, s.through.InFlight())
		require.EqualValues(t, 3, s.g.Node("disk").InFlight())
		s.finish(elsewhere, stays, beside)
	})
}

func TestCancelSparesWhoMayDepend(t *testing.T) {
	// Where a node above may have requests wait for each other those of a client end only when nobody wants any that could be among them: also one of
	// another owner on the same disk. A request that is begun afterwards and unwanted at once is not executed.
	onEngines(t, func(t *testing.T, c *AioContext) {
		s := newCancelScene(t, c, false)
		x, y := reader("x").read(t, s.through), reader("y").read(t, s.through)
		other := reader("z").read(t, s.other)
		s.settled(3)
		s.cancel(s.through, "x")
		s.settled(3)
		s.cancel(s.through, "y")
		s.settled(3)
		s.cancel(s.other, "z")
		for _, done := range []chan error{x, y, other} {
			require.ErrorIs(t, <-done, ErrCancelled)
		}
		s.settled(0)
		s.finish()
	})
}

func TestCancelSparesAJobAndAFlushAhead(t *testing.T) {
	// An owner that is busy, and a flush ahead of a change of the graph, are wanted by somebody, whatever becomes of clients: nothing ends as long as they last.
	onEngines(t, func(t *testing.T, c *AioContext) {
		s := newCancelScene(t, c, false)
		owner := &watchfulOwner{}
		owner.busy.Store(true)
		r, err := s.g.NewRoot(s.g.Node("p2"), RootOptions{Name: "job", Owner: owner})
		require.NoError(t, err)
		x := reader("x").read(t, s.through)
		s.settled(1)
		s.cancel(s.through, "x")
		s.settled(1)
		owner.busy.Store(false)
		k := (*Ticket)(nil)
		do(t, c, func(*Task) error { k = s.g.Node("p1").errand(opFlush); return nil })
		s.cancel(s.through, "x")
		s.settled(1)
		do(t, c, func(*Task) error {
			s.g.Node("p1").errands.remove(k)
			s.g.Node("p1").release()
			return nil
		})
		s.cancel(s.through, "x")
		require.ErrorIs(t, <-x, ErrCancelled)
		r.Close()
		s.finish()
	})
}

func TestCancelAllEndsEverything(t *testing.T) {
	// When the process is about to end it does not matter who wants something.
	onEngines(t, func(t *testing.T, c *AioContext) {
		s := newCancelScene(t, c, false)
		x, y := reader("x").read(t, s.through), reader("y").read(t, s.a)
		s.settled(2)
		s.g.CancelAll()
		require.ErrorIs(t, <-x, ErrCancelled)
		require.ErrorIs(t, <-y, ErrCancelled)
		s.finish()
	})
}

// rangedDisk holds the whole of itself for each request.
type rangedDisk struct {
	*patientDisk
	locks RangeLocks
}

func (d *rangedDisk) ReadAt(t *Task, p []byte, off int64) error {
	lock := d.locks.AcquireOr(t, d, Range{0, 4096}, true)
	if lock == nil {
		return ErrCancelled
	}
	defer d.locks.Release(lock)
	return d.patientDisk.ReadAt(t, p, off)
}

func (d *rangedDisk) GivesUp(t *Task, _ time.Duration) bool { return d.node.Unwanted(t) }

func (d *rangedDisk) Cancel() {
	d.patientDisk.Cancel()
	d.locks.Recheck()
}

func TestCancelOfThoseWhoWaitForARange(t *testing.T) {
	// Who waits for a range that somebody else holds does not wait when he is unwanted, and those behind him get it in their turn.
	onEngines(t, func(t *testing.T, c *AioContext) {
		d := &rangedDisk{patientDisk: &patientDisk{memory: newMemory(4096, Limits{Align: 1})}}
		g := NewGraph()
		n, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: d})
		require.NoError(t, err)
		r, err := g.NewRoot(n, RootOptions{Name: "r"})
		require.NoError(t, err)
		s := &cancelScene{t: t, ctx: c, disk: d.patientDisk, g: g}
		first, second, third := reader("x").read(t, r), reader("y").read(t, r), reader("z").read(t, r)
		s.settled(1)
		s.cancel(r, "y")
		require.ErrorIs(t, <-second, ErrCancelled)
		s.settled(1)
		s.cancel(r, "x")
		require.ErrorIs(t, <-first, ErrCancelled)
		s.settled(1)
		s.finish(third)
		do(t, c, func(*Task) error {
			if len(d.locks.held) > 0 {
				return errors.New("a range is held by nobody")
			}
			return nil
		})
		r.Close()
		require.NoError(t, g.RemoveNodes())
	})
}
