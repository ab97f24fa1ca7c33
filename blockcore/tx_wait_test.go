package blockcore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// tired is a memory that takes its time for all that a change asks of a driver. What it is to do at once is said by awake.
type tired struct {
	*memory
	asleep WaitQueue
	awake  bool
}

func (d *tired) rest(t *Task) {
	if !d.awake {
		t.Wait(&d.asleep)
	}
}

func (d *tired) Flush(t *Task) error {
	d.rest(t)
	return nil
}

func (d *tired) Resize(t *Task, sizeBytes int64) error {
	d.rest(t)
	return nil
}

func (d *tired) PrepareReopen(t *Task, options any) (commit, abort func(t *Task), err error) {
	d.rest(t)
	return d.rest, d.rest, nil
}

func (d *tired) Mend(t *Task) error {
	d.rest(t)
	return nil
}

func (d *tired) MayKeep(t *Task, name string, granularityBits uint) error {
	d.rest(t)
	return nil
}

func (d *tired) ChangeKept(*Task) error       { return nil }
func (d *tired) DropKept(*Task, string) error { return nil }

// Goal: who holds a section does not wait for the driver that a change of somebody else waits for, whatever that asks of it: a section that ends meanwhile is over, and
// its clients go on. Method: changes of all kinds whose driver, on one loop, sleeps, at the first, second or third thing that it is asked for; a section of a node
// on another loop ends then. Afterwards the driver is woken, and the change ends.
func TestSectionEndsWhileAChangeWaits(t *testing.T) {
	refused := errors.New("refused")
	table := []struct {
		name   string
		change func(tx *Tx, d *Drained, n *Node, tired *tired) error
	}{
		{"flush", func(tx *Tx, d *Drained, n *Node, _ *tired) error { return tx.Flush(n) }},
		{"resize", func(tx *Tx, d *Drained, n *Node, _ *tired) error { return tx.Resize(d, n, 8192) }},
		{"reopen", func(tx *Tx, d *Drained, n *Node, _ *tired) error { return tx.Reopen(d, n, nil) }},
		{"reopen, refused", func(tx *Tx, d *Drained, n *Node, tired *tired) error {
			tired.awake = true
			defer func() { tired.awake = false }()
			return errors.Join(tx.Reopen(d, n, nil), refused)
		}},
		{"reopen, stands", func(tx *Tx, d *Drained, n *Node, tired *tired) error {
			tired.awake = true
			defer func() { tired.awake = false }()
			return tx.Reopen(d, n, nil)
		}},
		{"snapshot", func(tx *Tx, d *Drained, n *Node, tired *tired) error {
			return tx.alter(d, n, false, func(t *Task) (func(*Task), error) { tired.rest(t); return nil, nil })
		}},
		{"snapshot, refused", func(tx *Tx, d *Drained, n *Node, tired *tired) error {
			err := tx.alter(d, n, false, func(t *Task) (func(*Task), error) { return tired.rest, nil })
			return errors.Join(err, refused)
		}},
		{"bitmap", func(tx *Tx, d *Drained, n *Node, _ *tired) error {
			_, err := tx.AddBitmap(n, "bitmap", 16, BitmapState{Persistent: true})
			return err
		}},
		{"removal", func(tx *Tx, d *Drained, n *Node, _ *tired) error { return tx.RemoveNode(n) }},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, two := NewStepped("one", nil), NewStepped("two", nil)
				g := NewGraph()
				slow := &tired{memory: newMemory(4096, Limits{Align: 1})}
				n, err := g.AddNode(NodeOptions{Name: "slow", Context: one.AioContext, Driver: slow})
				require.NoError(t, err)
				other, err := g.AddNode(NodeOptions{Name: "other", Context: two.AioContext, Driver: newMemory(4096, Limits{Align: 1})})
				require.NoError(t, err)
				var d, held *Drained
				drive(t, func() (err error) {
					d, err = g.Drain(context.Background(), DrainOptions{Nodes: []*Node{n}})
					return err
				}, one)
				drive(t, func() (err error) {
					held, err = g.Drain(context.Background(), DrainOptions{Nodes: []*Node{other}})
					return err
				}, two)
				changed := make(chan error, 1)
				go func() {
					changed <- g.Update(context.Background(), "test", func(tx *Tx) error { return row.change(tx, d, n, slow) })
				}()
				synctest.Wait()
				run(one)
				require.Empty(t, changed)
				require.False(t, slow.asleep.Empty())
				held.End()
				synctest.Wait()
				run(two)
				require.True(t, held.isOver(), "the section does not end")
				slow.awake = true
				one.Post(func() { slow.asleep.WakeAll() })
				run(one)
				if err := <-changed; !errors.Is(err, refused) {
					require.NoError(t, err)
				}
				d.End()
				run(one)
				closeStepped(t, one, two)
			})
		})
	}
}
