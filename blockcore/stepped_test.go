package blockcore

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// drive has the loops go on, each as long as it can, the last first, until fn has returned. It is called in a bubble.
func drive(t *testing.T, fn func() error, loops ...*Stepped) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	for range 1000 {
		synctest.Wait()
		for i := len(loops) - 1; i >= 0; i-- {
			for steps := 0; loops[i].Runnable() && steps < 100; steps++ {
				loops[i].Step()
				synctest.Wait()
			}
		}
		select {
		case err := <-done:
			require.NoError(t, err)
			return
		default:
		}
	}
	t.Fatal("the loops do nothing any more, and the control plane has not come to its end")
}

// closeStepped ends loops that have nothing left to do.
func closeStepped(t *testing.T, loops ...*Stepped) {
	for _, l := range loops {
		drive(t, func() error { l.Close(); return nil }, l)
	}
}

func TestSteppedDoesOneThingAtATime(t *testing.T) {
	// A Stepped does at most one thing a step, and says whether there is more to do and when: a Task that yields and one that sleeps.
	synctest.Test(t, func(t *testing.T) {
		l := NewStepped("loop", nil)
		var order []string
		note := func(what string) { order = append(order, what) }
		spawn := func(body func(t *Task)) { l.Post(func() { l.Spawn(BodyFunc(body)) }) }
		spawn(func(t *Task) { note("a"); t.Yield(); note("b") })
		spawn(func(t *Task) { note("c"); t.Sleep(time.Second); note("d") })
		steps := func() {
			for l.Runnable() {
				before := len(order)
				l.Step()
				require.LessOrEqual(t, len(order), before+1)
			}
		}
		steps()
		require.Equal(t, []string{"a", "c", "b"}, order)
		wait, ok := l.Timer()
		require.True(t, ok)
		require.Equal(t, time.Second, wait)
		order = nil
		<-time.After(wait)
		steps()
		require.Equal(t, []string{"d"}, order)
		closeStepped(t, l)
	})
}

func TestHeldRequestsBeginAgainBehindTheMove(t *testing.T) {
	// Who was held back at a Root that moves finds it on the new loop, and on that one only: requests are sent away when both loops have done
	// their part. (A request that began again on the new loop while the old one still sent the others away was never woken, and the move never
	// ended.) Three are held; the new loop is always ahead of the old one.
	synctest.Test(t, func(t *testing.T) {
		from, to := NewStepped("from", nil), NewStepped("to", nil)
		g := NewGraph()
		var n *Node
		var r *Root
		var d *Drained
		drive(t, func() (err error) {
			n, err = g.AddNode(NodeOptions{Name: "disk", Context: from.AioContext, Driver: newMemory(4096, Limits{Align: 1})})
			require.NoError(t, err)
			r, err = g.NewRoot(n, RootOptions{Name: "root", Movable: true})
			require.NoError(t, err)
			d, err = r.Drain(t.Context())
			return err
		}, from, to)
		var order []int
		var begin func(i int)
		begin = func(i int) {
			on := r.Context()
			on.Post(func() {
				on.Spawn(BodyFunc(func(t *Task) {
					var k Ticket
					if !r.Begin(t, &k) {
						begin(i)
						return
					}
					order = append(order, i)
					r.End(t, &k)
				}))
			})
		}
		for i := range 3 {
			begin(i)
		}
		drive(t, func() error { return nil }, from, to)
		drive(t, func() error { return g.Move(t.Context(), n, to.AioContext) }, from, to)
		require.Equal(t, to.AioContext, r.Context())
		require.Empty(t, order)
		drive(t, func() error { d.End(); return nil }, from, to)
		drive(t, func() error { r.Close(); return g.RemoveNode(n) }, from, to)
		require.Equal(t, []int{0, 1, 2}, order)
		closeStepped(t, from, to)
	})
}

func TestRequestsKeepTheirOrderBetweenTwoSections(t *testing.T) {
	// A request that came behind held ones is not overtaken by one that comes later, though another section begins before it has run: b was
	// held, c comes while b is on its way, and then b's Task makes another request.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	r := newRootOn(t, l.AioContext)
	start := func(names ...string) {
		l.Spawn(BodyFunc(func(t *Task) {
			for _, name := range names {
				var k Ticket
				r.Begin(t, &k)
				l.note("%s", name)
				r.End(t, &k)
			}
		}))
	}
	l.lines = nil
	l.during(func() { r.hush(); start("a"); start("b", "d") })
	l.during(func() {
		l.Post(r.stir)
		l.Post(func() { start("c") })
		l.Post(r.hush)
	})
	l.during(r.stir)
	l.expect("wait 8ms\na\nb\nc\nwait 8ms\nd\nwait 8ms")
}

// noting notes when it is quiesced and resumed: as a driver, and as an owner.
type noting struct {
	*memory
	note func(string)
}

func (d noting) Quiesce()   { d.note("quiesce") }
func (d noting) Busy() bool { return false }
func (d noting) Resume()    { d.note("resume") }

func TestSectionOfNodeAndRootResumesTheNodeFirst(t *testing.T) {
	// Children are resumed before their parents also where a section names both: the Root of a node, and the node.
	synctest.Test(t, func(t *testing.T) {
		l := NewStepped("loop", nil)
		g := NewGraph()
		var order []string
		note := func(who string) func(string) {
			return func(what string) { order = append(order, what+" "+who) }
		}
		drive(t, func() error {
			n, err := g.AddNode(NodeOptions{Name: "disk", Context: l.AioContext, Driver: noting{newMemory(4096, Limits{Align: 1}), note("node")}})
			require.NoError(t, err)
			r, err := g.NewRoot(n, RootOptions{Name: "root", Owner: noting{note: note("root")}})
			require.NoError(t, err)
			d, err := g.Drain(t.Context(), DrainOptions{Nodes: []*Node{n}, Roots: []*Root{r}})
			require.NoError(t, err)
			d.End()
			require.NoError(t, l.Do(func(*Task) error { return nil }))
			r.Close()
			return nil
		}, l)
		require.Equal(t, []string{"quiesce root", "quiesce node", "resume node", "resume root"}, order)
		drive(t, func() error { return g.RemoveNode(g.Node("disk")) }, l)
		closeStepped(t, l)
	})
}

// lateWriter is a filter whose work is done by a chore.
type lateWriter struct {
	noting
	child *Edge
	wrote error
}

func (d *lateWriter) SetChild(_ Role, e *Edge) { d.child = e }

func TestRemovedNodeDoesItsWorkBeforeItsChildrenAreGone(t *testing.T) {
	// What a node has put off is done when the node is removed, and needs its child for that: a chore that was to run in an hour flushes
	// the child.
	synctest.Test(t, func(t *testing.T) {
		l := NewStepped("loop", nil)
		g := NewGraph()
		d := &lateWriter{noting: noting{newMemory(4096, Limits{Align: 1}), func(string) {}}, wrote: context.Canceled}
		drive(t, func() error {
			disk, err := g.AddNode(NodeOptions{Name: "disk", Context: l.AioContext, Driver: newMemory(4096, Limits{Align: 1})})
			require.NoError(t, err)
			n, err := g.AddNode(NodeOptions{Name: "filter", Driver: d, Children: []ChildOptions{{RoleFile, disk}}})
			require.NoError(t, err)
			require.NoError(t, l.Do(func(t *Task) error {
				n.NewChore(ChoreRun, func(t *Task) {
					t.Yield()
					d.wrote = d.child.Flush(t)
				}).After(time.Hour)
				return nil
			}))
			require.NoError(t, g.RemoveNode(n))
			return g.RemoveNode(disk)
		}, l)
		require.NoError(t, d.wrote)
		closeStepped(t, l)
	})
}
