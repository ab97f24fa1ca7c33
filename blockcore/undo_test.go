package blockcore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// undoing is a graph that is changed in all ways there are, and that can be told in words.
//
//	blk -> top -> base <- other <- side        lonely     format -> inner (implicit)
type undoing struct {
	t      *testing.T
	graph  *blockcore.Graph
	main   *blockcore.AioContext
	io     *blockcore.AioContext
	log    blocktest.Log
	layers map[string]*blocktest.Layer
	roots  map[string]*blockcore.Root
}

func newUndoing(t *testing.T) *undoing {
	u := &undoing{t: t, layers: map[string]*blocktest.Layer{}, roots: map[string]*blockcore.Root{}}
	u.main, u.io = blocktest.NewContext(t, blockcore.EngineThreads), blocktest.NewContext(t, blockcore.EngineThreads)
	u.graph = blockcore.NewGraphWith(blockcore.GraphOptions{Main: u.main})
	require.NoError(t, u.graph.Update(t.Context(), "set up", func(tx *blockcore.Tx) error {
		for _, n := range []struct {
			name, child string
			implicit    bool
		}{{"base", "", false}, {"top", "base", false}, {"other", "base", false}, {"lonely", "", false}, {"inner", "", true}, {"format", "inner", false}, {"spare", "", false}} {
			if _, err := u.add(tx, n.name, n.child, n.implicit); err != nil {
				return err
			}
		}
		for name, node := range map[string]string{"blk": "top", "side": "other"} {
			var err error
			if u.roots[name], err = tx.NewRoot(u.graph.Node(node), blockcore.RootOptions{Name: name, Movable: true}); err != nil {
				return err
			}
		}
		return nil
	}))
	return u
}

func (u *undoing) add(tx *blockcore.Tx, name, child string, implicit bool) (*blockcore.Node, error) {
	l := blocktest.NewLayer(blocktest.LayerOptions{Name: name, Log: &u.log})
	u.layers[name] = l
	o := blockcore.NodeOptions{Name: name, Driver: l, Implicit: implicit}
	if child != "" {
		o.Children = []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: u.graph.Node(child)}}
	}
	return tx.AddNode(o)
}

// String tells all that a change may change.
func (u *undoing) String() string {
	text := ""
	edge := func(e *blockcore.Edge) string {
		user := "root"
		if parent, root := e.User(); parent != nil {
			user = parent.Name()
		} else {
			user += " " + root.Name()
		}
		return fmt.Sprintf(" %s-%s->%s(%v|%v)", user, e.Role(), e.Node().Name(), e.Permissions(), e.Shared())
	}
	for _, n := range u.graph.Nodes() {
		text += fmt.Sprintf("%s on main=%v qc=%d drv=%d size=%d", n.Name(), n.Context() == u.main, n.Quiesced(), u.layers[n.Name()].Still(), n.Size())
		for _, e := range n.Parents() {
			text += edge(e)
		}
		text += ";"
		for _, e := range n.Children() {
			text += edge(e)
		}
		text += "\n"
	}
	for _, name := range []string{"blk", "side", "new"} {
		if r := u.roots[name]; r != nil {
			text += fmt.Sprintf("%s on main=%v qc=%d", name, r.Context() == u.main, r.Quiesced())
			text += edge(r.Edge()) + "\n"
		}
	}
	return text + fmt.Sprint(len(u.graph.Roots()))
}

// calm returns when both loops have done what they were told.
func (u *undoing) calm() {
	for _, c := range []*blockcore.AioContext{u.main, u.io, u.main} {
		require.NoError(u.t, c.Do(func(t *blockcore.Task) error { t.Yield(); return nil }))
	}
}

// steps are one of each kind of change; each builds on those before it.
func (u *undoing) steps(tx *blockcore.Tx, d *blockcore.Drained) []func() error {
	g := u.graph
	child := func(name string) *blockcore.Edge { return g.Node(name).Children()[0] }
	return []func() error{
		func() error { return tx.SetContext(d, g.Node("base"), u.io) },
		func() error {
			_, err := tx.Attach(d, g.Node("spare"), blockcore.RoleBacking, g.Node("lonely"))
			return err
		},
		func() error { tx.Detach(d, g.Node("spare").Children()[0]); return nil },
		func() error { _, err := u.add(tx, "fresh", "base", false); return err },
		func() (err error) {
			_, err = tx.NewRoot(g.Node("fresh"), blockcore.RootOptions{Name: "new", Movable: true})
			return err
		},
		func() error { return tx.SetChild(d, child("top"), g.Node("fresh")) },
		func() error { return tx.Replace(d, g.Node("base"), g.Node("lonely")) },
		func() error { tx.CloseRoot(u.roots["side"]); return nil },
		func() error { tx.Detach(d, child("other")); return nil },
		func() error { return tx.RemoveNode(g.Node("other")) },
		func() error { return tx.RemoveNode(g.Node("format")) },
		func() error { return tx.SetContext(d, g.Node("top"), u.main) },
		func() error { tx.SetMovable(u.roots["blk"], false); return nil },
	}
}

func TestUpdateUndoesEveryStep_T_X9(t *testing.T) {
	// A change that fails is undone to the last edge, permission, loop, count and order, whatever it has done so far, and nobody is told anything. Method:
	// a change of all kinds of steps fails behind each of them, by its function and by a conflict of permissions at its end, while
	// sections of several kinds cover the graph; the graph told in words is the same before and after. In the end it succeeds.
	for name, others := range map[string][]blockcore.DrainOptions{
		"alone":           nil,
		"all":             {{All: true}},
		"twice all":       {{All: true}, {All: true}},
		"all and one":     {{All: true}, {}},
		"one of the base": {{}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUndoing(t)
			g := u.graph
			for _, o := range others {
				if !o.All {
					o.Nodes = []*blockcore.Node{g.Node("base")}
				}
				d, err := g.Drain(t.Context(), o)
				require.NoError(t, err)
				defer d.End()
			}
			d, err := g.Drain(t.Context(), blockcore.DrainOptions{Nodes: g.Nodes()})
			require.NoError(t, err)
			before := u.String()
			refused := errors.New("refused")
			count := len(u.steps(nil, d))
			for last := range count {
				for _, atCommit := range []bool{false, true} {
					err := g.Update(context.Background(), "fail", func(tx *blockcore.Tx) error {
						for i, step := range u.steps(tx, d)[:last+1] {
							require.NoError(t, step(), "step %d", i)
						}
						if !atCommit {
							return refused
						}
						for _, o := range []blockcore.RootOptions{{Unshared: blockcore.PermAll}, {Writable: true}} {
							if _, err := tx.NewRoot(g.Node("spare"), o); err != nil {
								return err
							}
						}
						return nil
					})
					if atCommit {
						require.ErrorContains(t, err, "Permission conflict on node 'spare'")
					} else {
						require.ErrorIs(t, err, refused)
					}
					u.calm()
					require.Equal(t, before, u.String(), "undone behind step %d", last)
					require.NotContains(t, u.log.Text(), "resume")
					require.NotContains(t, u.log.Text(), "fresh: quiesce")
				}
			}
			require.NoError(t, g.Update(context.Background(), "succeed", func(tx *blockcore.Tx) error {
				for _, step := range u.steps(tx, d) {
					require.NoError(t, step())
				}
				return nil
			}))
			d.End()
			u.roots["blk"].Close()
		})
	}
}

// Goal: a section that ends in the middle of a change that fails is over when the change is undone, and nothing stays still for it, whatever
// the change had taken out of the graph. Method: a change of all kinds of steps fails behind each of them, and sections of several kinds end
// before that, while it waits for a flush; once its own section is over, the graph told in words is what it was without any section.
func TestSectionsEndInTheMiddleOfAChangeThatFails_T_X9(t *testing.T) {
	for name, others := range map[string]func(u *undoing) []blockcore.DrainOptions{
		"all": func(*undoing) []blockcore.DrainOptions { return []blockcore.DrainOptions{{All: true}, {All: true}} },
		"each node": func(u *undoing) (all []blockcore.DrainOptions) {
			for _, n := range u.graph.Nodes() {
				all = append(all, blockcore.DrainOptions{Nodes: []*blockcore.Node{n}})
			}
			return all
		},
		"a root": func(u *undoing) []blockcore.DrainOptions {
			return []blockcore.DrainOptions{{Roots: []*blockcore.Root{u.roots["side"]}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUndoing(t)
			g := u.graph
			before := u.String()
			refused := errors.New("refused")
			for last := range len(u.steps(nil, nil)) {
				var sections []*blockcore.Drained
				for _, o := range others(u) {
					d, err := g.Drain(t.Context(), o)
					require.NoError(t, err)
					sections = append(sections, d)
				}
				d, err := g.Drain(t.Context(), blockcore.DrainOptions{Nodes: g.Nodes()})
				require.NoError(t, err)
				err = g.Update(context.Background(), "fail", func(tx *blockcore.Tx) error {
					for i, step := range u.steps(tx, d)[:last+1] {
						require.NoError(t, step(), "step %d", i)
					}
					for _, s := range sections {
						s.End()
					}
					require.NoError(t, tx.Flush(g.Node("spare")))
					return refused
				})
				require.ErrorIs(t, err, refused)
				d.End()
				u.calm()
				require.Equal(t, before, u.String(), "undone behind step %d", last)
			}
			u.roots["blk"].Close()
			u.roots["side"].Close()
		})
	}
}
