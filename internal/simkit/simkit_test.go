package simkit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: a read may find what the last write wrote, what is under way or may have happened, and nothing that was replaced. Method: a table over the writes of a
// cell.
func TestFind(t *testing.T) {
	old, failed := &Write{Tag: 1, Begin: 1, End: 2}, &Write{Tag: 2, Begin: 3, End: 4, Optional: true}
	last, begun := &Write{Tag: 3, Begin: 5, End: 6}, &Write{Tag: 4, Begin: 7, End: Never}
	stands := func(later *Write) bool { return !later.Optional }
	for _, c := range []struct {
		name  string
		cell  []*Write
		tag   uint64
		found *Write
		err   string
	}{
		{"the last", []*Write{old, last}, 3, last, ""},
		{"one that is under way", []*Write{last, begun}, 4, begun, ""},
		{"what came before one that has failed", []*Write{old, failed}, 1, old, ""},
		{"one that has failed", []*Write{old, failed}, 2, failed, ""},
		{"one that was replaced", []*Write{old, last}, 1, nil, "holds 0x1, which was replaced by 0x3@5-6; its last writes are [0x1@1-2 0x3@5-6]"},
		{"nobody's", []*Write{old, failed}, 9, nil, "holds 0x9, which nobody wrote; its last writes are [0x1@1-2 0x2@3-4?]"},
	} {
		found, err := Find(c.cell, c.tag, stands)
		require.Equal(t, c.found, found, c.name)
		if c.err != "" {
			require.EqualError(t, err, c.err, c.name)
		}
	}
}

// Goal: a flush makes durable what had ended when it began, and nothing that may not have happened. Method: one write of each kind.
func TestFlushed(t *testing.T) {
	ended, failed, begun := &Write{End: 4}, &Write{End: 3, Optional: true}, &Write{End: Never}
	require.Equal(t, []*Write{failed, begun}, Flushed([]*Write{ended, failed, begun}, 5))
	require.True(t, ended.Durable && !failed.Durable && !begun.Durable)
}

// Goal: a cell tells its tag, and that it is torn. Method: a cell that is whole, and the same with one other byte.
func TestTags(t *testing.T) {
	p := make([]byte, CellBytes)
	Fill(p, 7)
	tag, err := Tag(p)
	require.True(t, tag == 7 && err == nil)
	p[CellBytes-1] = 1
	_, err = Tag(p)
	require.ErrorContains(t, err, "torn")
}

// Goal: Threads are chosen by name once they have rested, and one that is no longer wanted is not chosen. Method: three of them, one with a context that ends.
func TestThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStage(true)
		ctx, cancel := context.WithCancel(t.Context())
		var order []string
		park := func(name string, ctx context.Context, rest time.Duration) {
			if s.NewThread(name).Park(ctx, rest) {
				order = append(order, name)
			}
		}
		go park("b", t.Context(), 0)
		go park("a", t.Context(), time.Second)
		go park("c", ctx, 0)
		synctest.Wait()
		cancel()
		s.Play(func() {
			if list := s.Eligible(); len(list) > 0 {
				s.Log("%s", list[0].Name)
				s.Grant(list[0])
				return
			}
			<-time.After(s.Idle(time.Minute))
			s.Ended = len(order) == 2
		})
		require.Equal(t, []string{"b", "a"}, order)
		require.Equal(t, []string{"0s #0 b", "1s #0 a"}, s.Result().Trace)
		s.MustMove(time.Second, func() string { return "nobody" })
		require.Equal(t, "nothing has come to an end for 1s: nobody", s.Result().Failure)
		s.Close()
	})
}
