package nfs

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// Goal: replies are waited for as many at a time as are expected soon, never more than three quarters of those of the connection. Method: a table.
func TestHowManyRepliesAreWorthAWait(t *testing.T) {
	const us = time.Microsecond
	for _, c := range []struct {
		interval time.Duration
		reply    int
		own, all int
		want     int
	}{
		{0, 0, 32, 32, 1}, // nothing is known
		{25 * us, 4224, 32, 32, 7},
		{25 * us, 164, 32, 32, 16},
		{25 * us, 164, 8, 32, 6},
		{25 * us, 164, 8, 8, 6},
		{25 * us, 164, 3, 3, 1},
		{100 * us, 164, 32, 32, 4},
		{5 * time.Millisecond, 164, 256, 256, 1},
		{25 * us, 1 << 20, 32, 32, 1},
		{25 * us, 164, 1, 32, 1},
	} {
		g := gatherer{interval: c.interval, reply: c.reply}
		require.Equal(t, c.want, g.worth(c.own, c.all), "%+v", c)
	}
}

// Goal: an average follows the server, and one long wait does not change it much. Method: replies at chosen times.
func TestPaceOfReplies(t *testing.T) {
	var g gatherer
	now := time.Second
	come := func(after time.Duration, n, all int) {
		for range n {
			g.came(164)
		}
		now += after
		g.pace(now, all)
	}
	for range 100 {
		come(100*time.Microsecond, 4, 32)
	}
	require.InDelta(t, 25*time.Microsecond, g.interval, 1000)
	come(10*time.Millisecond, 1, 32)
	require.Less(t, g.interval, 30*time.Microsecond)
	come(time.Second, 1, 1)
	come(time.Second, 1, 32)
	require.Less(t, g.interval, 30*time.Microsecond, "there were not calls enough")
	for range 100 {
		come(5*time.Millisecond, 1, 32)
	}
	require.Greater(t, g.interval, 4*time.Millisecond)
}

// Goal: with many requests in flight replies are gathered, the data is right, and a reply that no other follows is not held up. Method: readers side by side on both engines
// and several numbers of connections; then a server that answers one of many.
func TestRepliesAreGathered(t *testing.T) {
	for _, kind := range []blockcore.EngineKind{blockcore.EngineAuto, blockcore.EngineThreads} {
		for _, connections := range []int{1, 4} {
			t.Run(fmt.Sprintf("%v, %d connections", kind, connections), func(t *testing.T) {
				r := newRig(t, nfstest.Options{}, func(o *Options) { o.Connections = connections })
				r.onEngine(kind)
				want := random(7, diskBytes)
				r.write(0, want, 0)
				require.NoError(t, r.flush())
				gathered := r.readMany(want, 32, 300)
				require.True(t, gathered, "replies were gathered")
				r.answerOne(want)
			})
		}
	}
}

// Goal: a connection that ends with a reply is made anew at once, also by an engine that tells of both with one edge, when nothing more is looked for. Method: two calls in
// flight, the loop held up until the reply to one and the end of the stream have come.
func TestTheEndThatComesWithAReplyIsHeard(t *testing.T) {
	for _, kind := range []blockcore.EngineKind{blockcore.EngineAuto, blockcore.EngineThreads} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			r := newRig(t, nfstest.Options{}, nil)
			r.onEngine(kind)
			want := random(7, 8192)
			answer := make(chan struct{})
			r.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{Hold: answer}})
			r.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{NoReply: true}})
			first := r.begin(r.writing(0, want[:4096], 0))
			second := r.begin(r.writing(4096, want[4096:], 0))
			r.server.AwaitCalls(nfstest.Write, 2)
			goOn := r.holdUp(func(fd int) {
				close(answer)
				awaitEvent(t, fd, unix.POLLIN)
				r.server.Crash(nfstest.LoseAll)
				awaitEvent(t, fd, unix.POLLRDHUP)
				r.server.Restart()
			})
			close(goOn)
			require.NoError(t, r.wait(first))
			require.NoError(t, r.wait(second))
		})
	}
}

// holdUp keeps the loop from going on until the channel is closed that is returned, and has do called meanwhile with the socket of the first connection.
func (r *rig) holdUp(do func(fd int)) (goOn chan struct{}) {
	r.t.Helper()
	fd := make(chan int)
	goOn = make(chan struct{})
	require.True(r.t, r.ctx.Post(func() {
		fd <- r.file.conns[0].fd
		<-goOn
	}))
	do(<-fd)
	return goOn
}

// awaitEvent waits until a socket is ready.
func awaitEvent(t *testing.T, fd int, event int16) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: event}}, int(patienceMax/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 1, n)
		return
	}
}

// onEngine moves the rig to a loop of its own, with an engine.
func (r *rig) onEngine(kind blockcore.EngineKind) {
	r.t.Helper()
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: r.t.Name(), Engine: kind})
	require.NoError(r.t, err)
	r.t.Cleanup(func() {
		r.close()
		ctx.Close()
	})
	r.ctx = ctx
}

// gatheredMax is how long it may take until several replies are waited for: on a slow machine, which answers one by one, it is by chance that some come quickly.
const gatheredMax = time.Minute

// readMany has so many readers read so often, and then until sockets are to wait for several replies. It reports whether they were.
func (r *rig) readMany(want []byte, readers, rounds int) (gathered bool) {
	r.t.Helper()
	var all []chan error
	begun := time.Now()
	for i := range readers {
		all = append(all, r.begin(func(t *blockcore.Task) error {
			for round := 0; round < rounds || !gathered && time.Since(begun) < gatheredMax; round++ {
				off := int64((i*131 + round*17) % 64 * 4096)
				if err := r.reading(off, want[off:off+4096])(t); err != nil {
					return err
				}
				for _, c := range r.file.conns {
					gathered = gathered || c.floor > 1
				}
			}
			return nil
		}))
	}
	for _, done := range all {
		require.NoError(r.t, r.wait(done))
	}
	return gathered
}

// answerOne has the server keep all replies but one.
func (r *rig) answerOne(want []byte) {
	r.t.Helper()
	release := make(chan struct{})
	disarm := r.server.Inject(nfstest.Rule{
		Proc: nfstest.Read, Count: -1, Fault: nfstest.Fault{Hold: release},
		When: func(c nfstest.Call) bool { return c.Offset != 0 },
	})
	var held []chan error
	for i := range 24 {
		off := int64(1+i) * 4096
		held = append(held, r.begin(r.reading(off, want[off:off+4096])))
	}
	answered := r.begin(r.reading(0, want[:4096]))
	require.NoError(r.t, r.wait(answered), "one reply is there")
	for _, done := range held {
		require.Empty(r.t, done)
	}
	close(release)
	for _, done := range held {
		require.NoError(r.t, r.wait(done))
	}
	disarm()
}
