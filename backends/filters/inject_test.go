package filters

import (
	"context"
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: each rule hits the requests that it describes, and no others; method: a table of rules and the results of the same script.
func TestInjectRules(t *testing.T) {
	sector := func(n int64) blockcore.Range { return blockcore.Range{Offset: n * 512, Length: 512} }
	const ok, eio, enospc = syscall.Errno(0), syscall.EIO, syscall.ENOSPC
	// The script: read of sectors 0 and 1, write of 1, zeroes of 2, discard of 3, flush, status, prefetch of 0, read of 1.
	for _, c := range []struct {
		name  string
		rules []InjectRule
		want  []syscall.Errno
	}{
		{"none", nil, []syscall.Errno{ok, ok, ok, ok, ok, ok, ok, ok}},
		{"all", []InjectRule{{Errno: eio}}, []syscall.Errno{eio, eio, eio, eio, eio, ok, eio, eio}},
		{"a kind", []InjectRule{{Ops: InjectRead, Errno: eio}}, []syscall.Errno{eio, ok, ok, ok, ok, ok, eio, eio}},
		{"kinds", []InjectRule{{Ops: InjectFlush | InjectStatus, Errno: eio}}, []syscall.Errno{ok, ok, ok, ok, eio, eio, ok, ok}},
		{"a range", []InjectRule{{Range: sector(1), Errno: eio}}, []syscall.Errno{eio, eio, ok, ok, eio, ok, ok, eio}},
		{"once", []InjectRule{{Times: 1, Errno: eio}}, []syscall.Errno{eio, ok, ok, ok, ok, ok, ok, ok}},
		{"later", []InjectRule{{Skip: 2, Times: 2, Errno: eio}}, []syscall.Errno{ok, ok, eio, eio, ok, ok, ok, ok}},
		{"the first counts", []InjectRule{{Ops: InjectWrite, Errno: enospc}, {Times: 2, Errno: eio}}, []syscall.Errno{eio, enospc, eio, ok, ok, ok, ok, ok}},
		{"a delay", []InjectRule{{Delay: 1}}, []syscall.Errno{ok, ok, ok, ok, ok, ok, ok, ok}},
		{"never", []InjectRule{{Probability: math.SmallestNonzeroFloat64, Errno: eio}}, []syscall.Errno{ok, ok, ok, ok, ok, ok, ok, ok}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := NewInject(InjectOptions{Rules: c.rules})
			require.NoError(t, err)
			r := newRig(t, f)
			with := func(fn func(*blockcore.Task, *blockcore.Edge) error) error {
				return <-r.start("", blockcore.Range{}, fn)
			}
			got := []error{
				<-r.startRead(0, 1024),
				<-r.startWrite(512, make([]byte, 512)),
				with(func(t *blockcore.Task, e *blockcore.Edge) error { return e.WriteZeroes(t, sector(2), 0) }),
				with(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Discard(t, sector(3), false) }),
				with(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) }),
				with(func(t *blockcore.Task, e *blockcore.Edge) error {
					_, err := e.BlockStatus(t, sector(0), nil, 1)
					return err
				}),
				with(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Prefetch(t, sector(0)) }),
				<-r.startRead(512, 512),
			}
			for i, err := range got {
				if c.want[i] == ok {
					require.NoError(t, err, "request %d", i)
				} else {
					require.ErrorIs(t, err, c.want[i], "request %d", i)
				}
			}
			_, _, cached := r.root.Edge().CachedFile(sector(0))
			require.False(t, cached)
			r.requireStill()
		})
	}
}

// Goal: rules that make no sense are refused; method: a table.
func TestInjectRefusesRules(t *testing.T) {
	for _, c := range []struct {
		rule InjectRule
		err  string
	}{
		{InjectRule{}, "rule 0: the rule does nothing; give it an errno, a delay or hold"},
		{InjectRule{Errno: 5000}, "rule 0: errno 5000 is not between 1 and 4095"},
		{InjectRule{Errno: 5, Probability: 1.5}, "rule 0: probability 1.5 is not between 0 and 1"},
		{InjectRule{Errno: 5, Probability: math.NaN()}, "rule 0: probability NaN is not between 0 and 1"},
		{InjectRule{Errno: 5, Times: -1}, "rule 0: skip and times cannot be negative"},
		{InjectRule{Delay: -1}, "rule 0: delay of -1ns is negative"},
		{InjectRule{Errno: 5, Range: blockcore.Range{Offset: -1}}, "rule 0: range [-0x1, +0x0) is negative"},
		{InjectRule{Errno: 5, Range: blockcore.Range{Offset: 1, Length: math.MaxInt64}}, "rule 0: a range of 9223372036854775807 bytes from 1 on has no end"},
		{InjectRule{Errno: 5, Ops: 1 << 7}, "rule 0: unknown kind of request"},
		{InjectRule{Hold: true, Errno: 5}, "rule 0: a rule that holds requests cannot delay or fail them too; change the rules to let them go on"},
	} {
		_, err := NewInject(InjectOptions{Rules: []InjectRule{c.rule}})
		require.EqualError(t, err, c.err)
	}
}

// Goal: with the same seed the same requests are hit; method: two filters, a hundred requests.
func TestInjectSeed(t *testing.T) {
	var runs [2][]bool
	for i := range runs {
		f, err := NewInject(InjectOptions{Rules: []InjectRule{{Errno: syscall.EIO, Probability: 0.5}}, Seed: 42})
		require.NoError(t, err)
		r := newRig(t, f)
		for range 100 {
			runs[i] = append(runs[i], <-r.startRead(0, 512) != nil)
		}
	}
	require.Equal(t, runs[0], runs[1])
	require.Contains(t, runs[0], true)
	require.Contains(t, runs[0], false)
}

// Goal: a drain waits for what is delayed, and gives up on what is held with its name; when the rules change, what is held goes on
// as the new ones say, or stays. Method: a script of sections and rules.
func TestInjectAndDrain(t *testing.T) {
	f, err := NewInject(InjectOptions{Rules: []InjectRule{{Ops: InjectWrite, Hold: true}, {Ops: InjectRead, Delay: 20 * time.Millisecond}}})
	require.NoError(t, err)
	r := newRig(t, f)
	drain := func(limit time.Duration) error {
		d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "test", Nodes: []*blockcore.Node{r.disk}, Max: limit})
		if err == nil {
			d.End()
		}
		return err
	}
	delayed := r.startRead(0, 512)
	require.Eventually(t, func() bool { return r.top.InFlight() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, drain(0))
	require.NoError(t, <-delayed)

	first, second := r.startWrite(512, []byte{1}), r.startWrite(1024, []byte{2})
	require.Eventually(t, func() bool { return f.Held() == 2 }, time.Minute, time.Millisecond)
	err = drain(20 * time.Millisecond)
	var failed *blockcore.DrainError
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Culprits, 2)
	require.Equal(t, "top", failed.Culprits[0].Node)
	require.Contains(t, failed.Culprits[0].String(), "write [0x200, +0x1) in node top")
	require.Contains(t, failed.Culprits[0].Stack, "Inject")

	require.NoError(t, f.SetRules([]InjectRule{
		{Range: blockcore.Range{Offset: 512, Length: 1}, Errno: syscall.ENOSPC},
		{Ops: InjectWrite, Hold: true},
	}))
	require.ErrorIs(t, <-first, syscall.ENOSPC)
	require.Eventually(t, func() bool { return f.Held() == 1 }, time.Minute, time.Millisecond)
	require.Error(t, f.SetRules([]InjectRule{{}}))
	require.Equal(t, 1, f.Held(), "rules that are refused change nothing")
	require.NoError(t, f.SetRules(nil))
	require.NoError(t, <-second)
	require.NoError(t, drain(0))
	require.Equal(t, []byte{0}, r.read(512, 1))
	require.Equal(t, []byte{2}, r.read(1024, 1))
	r.requireStill()
}

// Goal: blkdebug's options do what they do in QEMU; method: a table of elements of inject-error and the rules they make.
func TestBlkdebugOptions(t *testing.T) {
	seven, beyond := int64(7), int64(1)<<55
	for _, c := range []struct {
		e    BlkdebugInjectError
		want InjectRule
		err  string
	}{
		{e: BlkdebugInjectError{}, want: InjectRule{Ops: InjectDefault, Errno: syscall.EIO}},
		{
			e:    BlkdebugInjectError{Event: "none", IOType: "write", Errno: 28, Sector: &seven, Once: true, Immediately: true},
			want: InjectRule{Ops: InjectWrite, Errno: syscall.ENOSPC, Range: blockcore.Range{Offset: 3584, Length: 512}, Times: 1},
		},
		{e: BlkdebugInjectError{IOType: "block-status"}, want: InjectRule{Ops: InjectStatus, Errno: syscall.EIO}},
		{e: BlkdebugInjectError{Event: "flush_to_disk"}, want: InjectRule{Ops: InjectFlush, Errno: syscall.EIO}},
		{e: BlkdebugInjectError{Event: "l2_load"}, err: "inject-error.0: Parameter 'event' does not accept value 'l2_load'"},
		{e: BlkdebugInjectError{IOType: "erase"}, err: "inject-error.0: Parameter 'iotype' does not accept value 'erase'"},
		{e: BlkdebugInjectError{Event: "read_aio", IOType: "write"}, err: "inject-error.0: no request of iotype 'write' passes event 'read_aio'"},
		{e: BlkdebugInjectError{Errno: -5}, err: "inject-error.0: errno -5 is negative"},
		{e: BlkdebugInjectError{Sector: &beyond}, err: "inject-error.0: there is no sector 36028797018963968"},
	} {
		o, err := BlkdebugOptions{InjectError: []BlkdebugInjectError{c.e}}.Inject()
		if c.err != "" {
			require.EqualError(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, []InjectRule{c.want}, o.Rules)
	}
}

// Goal: reopening replaces the rules, or leaves them when the change fails; method: reopen twice.
func TestInjectReopens(t *testing.T) {
	f, err := NewInject(InjectOptions{})
	require.NoError(t, err)
	r := newRig(t, f)
	reopen := func(fail error) error {
		return r.drained(func(tx *blockcore.Tx, d *blockcore.Drained) error {
			if err := tx.Reopen(d, r.top, InjectOptions{Rules: []InjectRule{{Errno: syscall.EIO}}}); err != nil {
				return err
			}
			return fail
		}, r.top)
	}
	require.Error(t, reopen(syscall.EBUSY))
	require.NoError(t, <-r.startRead(0, 512))
	require.NoError(t, reopen(nil))
	require.ErrorIs(t, <-r.startRead(0, 512), syscall.EIO)
}

// Goal: rules do not keep a filter from being taken away; method: all is to be held, or fails.
func TestInjectCanBeTakenAway(t *testing.T) {
	for _, rule := range []InjectRule{{Hold: true}, {Errno: syscall.EIO}} {
		f, err := NewInject(InjectOptions{Rules: []InjectRule{rule}})
		require.NoError(t, err)
		r := newRig(t, f)
		r.remove(r.top)
		require.NoError(t, <-r.startRead(0, 512))
		require.Equal(t, []*blockcore.Node{r.disk}, r.graph.Nodes())
	}
}
