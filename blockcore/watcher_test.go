package blockcore

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pair returns two connected sockets: ours does not block, the peer's does.
func pair(t testing.TB) (ours, peer int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.SetNonblock(fds[0], true))
	return fds[0], fds[1]
}

// pairTCP is pair over TCP.
func pairTCP(t testing.TB) (ours, peer int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	near, err := l.Accept()
	require.NoError(t, err)
	ours, peer = descriptor(t, near.(*net.TCPConn)), descriptor(t, far.(*net.TCPConn))
	require.NoError(t, unix.SetNonblock(ours, true))
	require.NoError(t, unix.SetNonblock(peer, false))
	return ours, peer
}

func descriptor(t testing.TB, c *net.TCPConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	var fd int
	var errDup error
	require.NoError(t, raw.Control(func(own uintptr) {
		fd, errDup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	}))
	require.NoError(t, errDup)
	require.NoError(t, c.Close())
	return fd
}

// onPairs runs test for each engine and each kind of socket.
func onPairs(t *testing.T, test func(t *testing.T, c *AioContext, ours, peer int)) {
	for name, connect := range map[string]func(testing.TB) (int, int){"unix": pair, "tcp": pairTCP} {
		t.Run(name, func(t *testing.T) {
			onEngines(t, func(t *testing.T, c *AioContext) {
				ours, peer := connect(t)
				t.Cleanup(func() { unix.Close(peer) })
				test(t, c, ours, peer)
				requireNoWatchers(t, c)
			})
		})
	}
}

// requireNoWatchers waits until the kernel has let go of all Watchers, which must be closed.
func requireNoWatchers(t testing.TB, c *AioContext) {
	t.Helper()
	do(t, c, func(t *Task) error {
		for len(c.watchers.free) < len(c.watchers.table) {
			t.Yield()
		}
		return nil
	})
}

// watch makes a hot Watcher on the loop.
func watch(t testing.TB, c *AioContext, fd int, h Handler) *Watcher {
	t.Helper()
	var w *Watcher
	onLoop(t, c, func() { w = c.Watch(fd, h); w.Heat() })
	return w
}

// closeWatcher closes w and its descriptor on the loop.
func closeWatcher(t testing.TB, c *AioContext, w *Watcher) {
	t.Helper()
	onLoop(t, c, func() { w.Close(); unix.Close(w.fd) })
}

// readAll reads what there is and returns it, and what ended it.
func readAll(fd int) (data []byte, end error) {
	p := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return data, err
		case n == 0:
			return data, io.EOF
		default:
			data = append(data, p[:n]...)
		}
	}
}

// readFull is a blocking read of exactly p.
func readFull(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Read(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			p = p[n:]
		}
	}
	return nil
}

// echo sends back what it reads; it stays hot as long as it lives.
type echo struct {
	w  *Watcher
	fd int
}

func (e *echo) ReadyIn() bool {
	data, _ := readAll(e.fd)
	e.w.Heat()
	if len(data) > 0 {
		_, _ = unix.Write(e.fd, data)
	}
	return len(data) > 0
}

func (e *echo) ReadyOut() {}

func TestNoDataIsLostBeforeSleep(t *testing.T) {
	// Data that arrives at any moment, that between the last look at the socket and the sleep among them, wakes the loop: a peer
	// sends bytes one by one after random pauses and waits for each to come back. A lost one hangs the test.
	onPairs(t, func(t *testing.T, c *AioContext, ours, peer int) {
		rng := newRand(t)
		e := &echo{fd: ours}
		onLoop(t, c, func() { e.w = c.Watch(ours, e); e.w.Heat() })
		for i := range 10_000 {
			if rng.IntN(4) == 0 {
				spin(rng)
			}
			p := []byte{byte(i)}
			_, err := unix.Write(peer, p)
			require.NoError(t, err)
			require.NoError(t, readFull(peer, p))
			require.Equal(t, byte(i), p[0])
		}
		closeWatcher(t, c, e.w)
	})
}

func TestArmedSocketsWakeTheLoop(t *testing.T) {
	// A loop that sleeps with everything armed is woken by data on any of its sockets, and each handler gets its own: two hundred
	// sockets get a number each, in random order, one at a time.
	// Scenarios: T-A9, T-A10.
	onEngines(t, func(t *testing.T, c *AioContext) {
		const sockets = 200
		type arrival struct{ socket, number int }
		arrivals := make(chan arrival, 1)
		var watchers [sockets]*Watcher
		var peers [sockets]int
		for i := range sockets {
			var ours int
			ours, peers[i] = pair(t)
			defer unix.Close(peers[i])
			h := &handler{in: func() bool {
				data, _ := readAll(ours)
				watchers[i].Heat()
				if len(data) > 0 {
					arrivals <- arrival{i, int(data[0])}
				}
				return len(data) > 0
			}}
			onLoop(t, c, func() { watchers[i] = c.Watch(ours, h); watchers[i].Heat() })
		}
		for _, i := range newRand(t).Perm(sockets) {
			do(t, c, func(t *Task) error { asleep(t); return nil })
			_, err := unix.Write(peers[i], []byte{byte(i)})
			require.NoError(t, err)
			require.Equal(t, arrival{i, int(byte(i))}, <-arrivals)
		}
		for _, w := range watchers {
			closeWatcher(t, c, w)
		}
		requireNoWatchers(t, c)
	})
}

// stuff writes to fd until it is full and returns how much it took.
func stuff(fd int) (total int) {
	p := make([]byte, 64<<10)
	for {
		n, err := unix.Write(fd, p)
		if err != nil {
			return total
		}
		total += n
	}
}

func TestRoomToWrite(t *testing.T) {
	// ArmOut calls back when a full socket has room again, once; a call too early is allowed, as long as asking again helps:
	// the socket is filled, the peer reads it empty, several times over.
	onPairs(t, func(t *testing.T, c *AioContext, ours, peer int) {
		room := make(chan struct{}, 10)
		var w *Watcher
		onLoop(t, c, func() {
			w = c.Watch(ours, &handler{out: func() {
				if _, err := unix.Write(ours, []byte{0}); err != nil {
					w.ArmOut()
					return
				}
				room <- struct{}{}
			}})
		})
		for range 5 {
			full := 0
			for early := 1; early > 0; full += early { // over TCP there is room again when the kernel has moved data to the peer's buffer
				onLoop(t, c, func() {
					full += stuff(ours)
					w.ArmOut()
					w.ArmOut()
				})
				do(t, c, func(t *Task) error { asleep(t); return nil })
				for early = 0; len(room) > 0; early++ {
					<-room
				}
			}
			require.NoError(t, readFull(peer, make([]byte, full)))
			<-room
			require.NoError(t, readFull(peer, make([]byte, 1)))
		}
		require.Empty(t, room)
		closeWatcher(t, c, w)
	})
}

func TestArmOutOfASocketWithRoom(t *testing.T) {
	// ArmOut calls back at once, each time it is called, where there is room all the while; a file, of which epoll will not
	// know, is no exception and lets others run in between.
	onEngines(t, func(t *testing.T, c *AioContext) {
		ours, peer := pair(t)
		defer unix.Close(peer)
		defer unix.Close(ours)
		for _, fd := range []int{ours, tempFile(t, 0)} {
			calls := 0
			done := make(chan struct{})
			var w *Watcher
			onLoop(t, c, func() {
				w = c.Watch(fd, &handler{out: func() {
					if calls++; calls < 5 {
						w.ArmOut()
						return
					}
					w.Close()
					close(done)
				}})
				w.ArmOut()
			})
			<-done
		}
		requireNoWatchers(t, c)
	})
}

func TestBusyLoopHearsItsSockets(t *testing.T) {
	// A loop that never comes to rest delivers what is armed all the same: a Task yields without end until a full socket
	// that was emptied has room, in a context in which nothing else happens.
	onPairs(t, func(t *testing.T, c *AioContext, ours, peer int) {
		var w *Watcher
		var full int
		room := false
		onLoop(t, c, func() {
			w = c.Watch(ours, &handler{out: func() { room = true }})
			full = stuff(ours)
			w.ArmOut()
		})
		busy := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- c.Do(func(t *Task) error {
				close(busy)
				for !room {
					t.Yield()
				}
				return nil
			})
		}()
		<-busy
		require.NoError(t, readFull(peer, make([]byte, full)))
		require.NoError(t, <-done)
		closeWatcher(t, c, w)
	})
}

func TestHangUpWakes(t *testing.T) {
	// A peer that goes wakes a sleeping loop: the reader finds the end, the writer that waits for room an error. The peer closes
	// its socket, or shuts down its sending half, with nothing unread, and over TCP by a reset too.
	ways := map[string]func(peer int) error{
		"close": unix.Close,
		"half":  func(peer int) error { return unix.Shutdown(peer, unix.SHUT_WR) },
		"reset": func(peer int) error {
			_ = unix.SetsockoptLinger(peer, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			return unix.Close(peer)
		},
	}
	for name, hangUp := range ways {
		t.Run(name, func(t *testing.T) {
			onPairs(t, func(t *testing.T, c *AioContext, ours, peer int) {
				gone := make(chan error, 1)
				room := make(chan struct{}, 1)
				ended := false
				w := watch(t, c, ours, &handler{
					in: func() bool {
						if _, err := readAll(ours); !ended && err != unix.EAGAIN {
							ended = true
							gone <- err
						}
						return false
					},
					out: func() { room <- struct{}{} },
				})
				onLoop(t, c, func() {
					if name != "half" {
						stuff(ours)
						w.ArmOut()
					}
				})
				do(t, c, func(t *Task) error { asleep(t); return nil })
				require.NoError(t, hangUp(peer))
				require.Contains(t, []error{io.EOF, unix.ECONNRESET}, <-gone)
				if name != "half" {
					<-room
					_, err := unix.Write(ours, []byte{0})
					require.Error(t, err)
				}
				closeWatcher(t, c, w)
			})
		})
	}
}

func TestCloseWhileArmed(t *testing.T) {
	// A Watcher that is closed while it is armed calls nobody any more, whatever happens to its socket, and its slot becomes
	// free: armed for reading, for writing, for both and for nothing, with and without an event that is already there.
	onEngines(t, func(t *testing.T, c *AioContext) {
		for armed := range 4 {
			for _, event := range []bool{false, true} {
				ours, peer := pair(t)
				closed := false
				called := func() {
					if closed {
						t.Errorf("armed %02b, event %v: called after Close", armed, event)
					}
				}
				h := &handler{in: func() bool { called(); return false }, out: called}
				var w *Watcher
				onLoop(t, c, func() {
					w = c.Watch(ours, h)
					stuff(ours)
					if armed&1 != 0 {
						w.Heat()
					}
					if armed&2 != 0 {
						w.ArmOut()
					}
				})
				do(t, c, func(t *Task) error { asleep(t); return nil })
				onLoop(t, c, func() {
					if event {
						_, _ = unix.Write(peer, []byte{1})
						go unix.Close(peer)
					}
					w.Close()
					w.Close()
					closed = true
					w.Heat()
					w.ArmOut()
					unix.Close(ours)
				})
				requireNoWatchers(t, c)
				if !event {
					unix.Close(peer)
				}
			}
		}
	})
}

func TestCloseFromAHandler(t *testing.T) {
	// A handler may close its own Watcher, with the other direction armed or not, and make another that takes its place at once: each
	// kind of call closes, with everything ready in both directions.
	onPairs(t, func(t *testing.T, c *AioContext, ours, peer int) {
		defer unix.Close(ours)
		for _, inCloses := range []bool{true, false} {
			for _, both := range []bool{true, false} {
				again := make(chan string, 4)
				var w, next *Watcher
				h := &handler{}
				calls := 0
				replace := func(name string) {
					if calls++; calls > 1 {
						t.Errorf("%s after Close", name)
					}
					w.Close()
					next = c.Watch(ours, &handler{out: func() { again <- name }})
					next.ArmOut()
				}
				h.in = func() bool {
					if inCloses && !w.closed {
						if _, err := unix.Read(ours, make([]byte, 1)); err == nil {
							replace("in")
						}
					}
					return false
				}
				h.out = func() {
					if !inCloses {
						replace("out")
					}
				}
				var full int
				onLoop(t, c, func() {
					full = stuff(ours)
					w = c.Watch(ours, h)
					if inCloses || both {
						w.Heat()
					}
					if !inCloses || both {
						w.ArmOut()
					}
				})
				do(t, c, func(t *Task) error { asleep(t); return nil })
				if inCloses {
					_, err := unix.Write(peer, []byte{1})
					require.NoError(t, err)
				}
				require.NoError(t, readFull(peer, make([]byte, full)))
				<-again
				onLoop(t, c, func() { next.Close() })
				requireNoWatchers(t, c)
			}
		}
	})
}

func TestCloseWhileThePollIsWoken(t *testing.T) {
	// A poll that is woken while it is taken back, and then finds nothing because what came has been read, is taken back all the same: otherwise it
	// would keep the socket open for ever, and the peer would never hear of its end. One turn: armed, a byte comes, it is read, all is closed.
	onPairs(t, func(t *testing.T, c *AioContext, ours, peer int) {
		var w *Watcher
		onLoop(t, c, func() {
			w = c.Watch(ours, listen(ours, func(int) {}))
			c.engine.arm(w, directionIn)
			c.engine.submit()
			var p [1]byte
			if _, err := unix.Write(peer, []byte{1}); err != nil {
				t.Error(err)
			}
			for {
				if n, err := unix.Read(ours, p[:]); n == 1 || err != unix.EAGAIN {
					break
				}
			}
			w.Close()
			unix.Close(ours)
		})
		var p [1]byte
		require.NoError(t, unix.SetsockoptTimeval(peer, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
		n, err := unix.Read(peer, p[:])
		require.NoError(t, err)
		require.Zero(t, n, "end of file")
	})
}

func TestDescriptorNumberIsReused(t *testing.T) {
	// A descriptor that is closed right after its Watcher, and whose number a new socket takes at once, mixes nothing up:
	// many rounds, armed or not yet, and what the new socket gets reaches the new handler only.
	onEngines(t, func(t *testing.T, c *AioContext) {
		number, peer := pair(t)
		type arrival struct{ round, value int }
		arrivals := make(chan arrival, 8)
		rng := newRand(t)
		w := watch(t, c, number, &handler{})
		for round := range 300 {
			if rng.IntN(2) == 0 {
				do(t, c, func(t *Task) error { asleep(t); return nil })
			}
			ours, newPeer := pair(t)
			onLoop(t, c, func() {
				if rng.IntN(2) == 0 {
					stuff(number)
				}
				w.ArmOut()
				w.Close()
				unix.Close(peer)
				if err := unix.Dup3(ours, number, unix.O_CLOEXEC); err != nil {
					t.Error(err)
				}
				w = c.Watch(number, listen(number, func(v int) { arrivals <- arrival{round, v} }))
				w.Heat()
			})
			unix.Close(ours)
			peer = newPeer
			_, err := unix.Write(peer, []byte{byte(round)})
			require.NoError(t, err)
			require.Equal(t, arrival{round, int(byte(round))}, <-arrivals)
		}
		closeWatcher(t, c, w)
		unix.Close(peer)
		requireNoWatchers(t, c)
	})
}

// listen makes a handler that hands over each byte it reads, and is heated by its owner.
func listen(fd int, got func(int)) Handler {
	return &handler{in: func() bool {
		data, _ := readAll(fd)
		for _, b := range data {
			got(int(b))
		}
		return len(data) > 0
	}}
}

func TestManyConnectionsComeAndGo(t *testing.T) {
	// Sockets that come, talk, stall and go in random order neither lose a byte nor leave a Watcher behind: a random walk of
	// some thousand steps over twenty sockets.
	onEngines(t, func(t *testing.T, c *AioContext) {
		rng := newRand(t)
		var live [20]*talker
		for step := range 2000 {
			i := rng.IntN(len(live))
			if live[i] == nil {
				live[i] = newTalker(t, c)
				continue
			}
			require.NoError(t, live[i].step(c, rng), "step %d, socket %d", step, i)
			if rng.IntN(10) == 0 {
				live[i].leave(t, c)
				live[i] = nil
			}
		}
		for _, l := range live {
			if l != nil {
				l.leave(t, c)
			}
		}
		requireNoWatchers(t, c)
	})
}

// talker is a socket that echoes, and its peer.
type talker struct {
	echo *echo
	peer int
	sent byte
}

func newTalker(t testing.TB, c *AioContext) *talker {
	ours, peer := pair(t)
	k := &talker{echo: &echo{fd: ours}, peer: peer}
	onLoop(t, c, func() { k.echo.w = c.Watch(ours, k.echo); k.echo.w.Heat() })
	return k
}

func (k *talker) step(c *AioContext, rng *rand.Rand) error {
	if rng.IntN(3) == 0 {
		// Back-pressure: cold for a moment, with data on its way.
		c.Post(k.echo.w.Cool)
		defer c.Post(k.echo.w.Heat)
		return nil
	}
	p := make([]byte, 1+rng.IntN(100))
	for i := range p {
		k.sent++
		p[i] = k.sent
	}
	if _, err := unix.Write(k.peer, p); err != nil {
		return err
	}
	got := make([]byte, len(p))
	if err := readFull(k.peer, got); err != nil {
		return err
	}
	for i := range got {
		if got[i] != p[i] {
			return fmt.Errorf("byte %d is %d, not %d", i, got[i], p[i])
		}
	}
	return nil
}

func (k *talker) leave(t testing.TB, c *AioContext) {
	closeWatcher(t, c, k.echo.w)
	unix.Close(k.peer)
}

// Goal: ArmIn calls back once when something has come, and not in the turns before it. Method: a peer that writes after a while of turns.
func TestArmInWaitsForTheKernel(t *testing.T) {
	onPairs(t, func(t *testing.T, c *AioContext, ours, peer int) {
		calls := 0
		arrived := make(chan string, 1)
		h := &inHandler{func() bool {
			calls++
			data, _ := readAll(ours)
			arrived <- string(data)
			return true
		}}
		var w *Watcher
		onLoop(t, c, func() { w = c.Watch(ours, h); w.Heat(); w.ArmIn() })
		do(t, c, func(t *Task) error {
			for range 100 {
				t.Yield()
			}
			return nil
		})
		onLoop(t, c, func() {
			if calls != 0 {
				arrived <- "called for nothing"
			}
		})
		_, err := unix.Write(peer, []byte("data"))
		require.NoError(t, err)
		require.Equal(t, "data", <-arrived)
		closeWatcher(t, c, w)
	})
}

// inHandler is a Handler of a function for what comes in.
type inHandler struct{ in func() bool }

func (h *inHandler) ReadyIn() bool { return h.in() }
func (h *inHandler) ReadyOut()     {}
