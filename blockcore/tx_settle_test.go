package blockcore

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// settling notes what a change has it do at its end, and can refuse each part.
type settling struct {
	*reopenable
	lock, mend error
	perm       func() Permissions // of the edge below it, when it is to mend
}

func (s *settling) PrepareLocks(onlyRead bool) (commit, abort func(), err error) {
	note := func(what string) func() { return func() { *s.story = append(*s.story, what) } }
	if onlyRead {
		note("locks less")()
	} else {
		note("locks all")()
	}
	return note("locked"), note("unlocked"), s.lock
}

func (s *settling) Mend(*Task) error {
	*s.story = append(*s.story, "mend "+s.perm().String())
	return s.mend
}

func (s *settling) OptionsFor(readOnly bool) any { return Features{ReadOnly: readOnly} }

// Goal: a node that becomes writable takes its locks and puts itself right at the end of the change, with the permissions that it has then; where one of
// both fails, nothing is as it would have been, permissions included. Method: a node with an owner that may write, made read-only and back.
func TestAccessSettles(t *testing.T) {
	table := []struct {
		name       string
		lock, mend error
		story      []string
	}{
		{"stands", nil, nil, []string{"prepare", "locks all", "mend consistent read, write", "locked", "commit"}},
		{"locked out", errors.New("no lock"), nil, []string{"prepare", "locks all", "abort"}},
		{"beyond repair", nil, errors.New("no repair"), []string{"prepare", "locks all", "mend consistent read, write", "unlocked", "abort"}},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			c, g := newTestContext(t, ContextOptions{}), NewGraph()
			var story []string
			s := &settling{reopenable: &reopenable{memory: newMemory(4096, Limits{Align: 1}), story: &story}}
			n, err := g.AddNode(NodeOptions{Name: "n", Context: c, Driver: s, ReadOnly: true})
			require.NoError(t, err)
			s.features.ReadOnly = true
			above, err := g.AddNode(NodeOptions{Name: "above", Context: c, Driver: &Filter{}, Children: []ChildOptions{{RoleFile, n}}})
			require.NoError(t, err)
			s.perm = func() Permissions { return n.Parents()[0].Permissions() }
			d, err := g.Drain(context.Background(), DrainOptions{Nodes: []*Node{n, above}})
			require.NoError(t, err)
			defer d.End()
			story, s.lock, s.mend = nil, row.lock, row.mend
			var owner *Root
			err = g.Update(context.Background(), "access", func(tx *Tx) (err error) {
				if err = tx.SetAccess(d, n, false); err != nil {
					return err
				}
				owner, err = tx.NewRoot(above, RootOptions{Permissions: PermWrite})
				return err
			})
			require.Equal(t, row.story, story)
			writes := PermRead
			if row.lock == nil && row.mend == nil {
				require.NoError(t, err)
				writes |= PermWrite
				defer owner.Close()
			} else {
				require.ErrorIs(t, err, errors.Join(row.lock, row.mend).(interface{ Unwrap() []error }).Unwrap()[0])
				require.False(t, n.Writable())
			}
			require.Equal(t, writes, s.perm()|PermRead)
		})
	}
}
