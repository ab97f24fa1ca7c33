package uring

import (
	"bytes"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestNops(t *testing.T) {
	// Entries come back once each with their user data, through many rounds of the queues: batches of all sizes.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		require.NoError(t, h.Submit())
		require.Zero(t, h.Stats().Enters, "nothing to do is no system call")
		id := uint64(0)
		for round := range 200 {
			n := round%8 + 1
			for range n {
				h.next(t, id).Nop()
				id++
			}
			require.Equal(t, uint32(n), h.Pending())
			h.collect(t, n)
			require.Zero(t, h.Pending())
			require.False(t, h.Ready())
		}
		s := h.Stats()
		require.Equal(t, id, s.Submitted)
		require.Equal(t, id, s.Completed)
		require.Equal(t, uint64(200), s.Enters, "one system call a batch")
	})
}

func TestFullSubmissionQueue(t *testing.T) {
	// Next says nil when the queue is full, and has room again after Submit.
	h := newHost(t, Params{Entries: 4}, 0)
	for i := range uint64(4) {
		h.next(t, i).Nop()
	}
	require.Nil(t, h.Next())
	require.NoError(t, h.Submit())
	h.next(t, 4).Nop()
	h.collect(t, 5)
}

func TestBadEntryDoesNotStopTheOthers(t *testing.T) {
	// A wrong entry fails alone: on every kernel the entries behind it are submitted by the same call.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		h.next(t, 1).Nop()
		h.next(t, 2).Opcode = 250
		h.next(t, 3).Nop()
		h.next(t, 4).Opcode = 251
		h.next(t, 5).Nop()
		require.NoError(t, h.Submit())
		require.Zero(t, h.Pending())
		got := h.collect(t, 5)
		require.Equal(t, unix.EINVAL, got[2].errno())
		require.Equal(t, unix.EINVAL, got[4].errno())
		require.Zero(t, got[5].Res)
	})
}

func TestCompletionQueueOverflow(t *testing.T) {
	// Completions that do not fit are late, not lost: 16 times the queue is completed before the first is reaped.
	everywhere(t, Params{Entries: 8, CQEntries: 8}, func(t *testing.T, h *host) {
		const rounds = 16
		seen := map[uint64]bool{}
		out := make([]CQE, 5)
		reap := func() {
			for n := h.Reap(out); n > 0; n = h.Reap(out) {
				for _, c := range out[:n] {
					require.False(t, seen[c.UserData])
					seen[c.UserData] = true
				}
			}
		}
		for round := range uint64(rounds) {
			for i := range uint64(8) {
				h.next(t, 8*round+i).Nop()
			}
			for err := h.Submit(); err != nil; err = h.Submit() {
				require.ErrorIs(t, err, ErrBusy)
				reap()
			}
		}
		require.True(t, h.TaskRunPending())
		for len(seen) < 8*rounds {
			require.NoError(t, h.SubmitAndWait(-1))
			reap()
		}
		require.NotZero(t, h.Stats().Overflows)
		require.False(t, h.TaskRunPending())
	})
}

func TestTaskWork(t *testing.T) {
	// Deferred work shows itself in memory and is done by Submit: a hundred reads of a pipe become possible at
	// once, more than the kernel finishes in one entry.
	const n = 100
	h := newHost(t, Params{Entries: n}, 0)
	if h.setup.flags&setupDeferTaskrun == 0 {
		return // before Linux 6.1 nothing is deferred
	}
	r, w := pipe(t)
	buf := h.pool.Get(n)
	for i := range n {
		h.next(t, uint64(i)).Read(r, address(buf[i:]), 1, ^uint64(0), 0)
	}
	require.NoError(t, h.Submit())
	require.False(t, h.Ready())
	require.False(t, h.TaskRunPending())
	_, err := unix.Write(w, bytes.Repeat([]byte{7}, n))
	require.NoError(t, err)
	require.True(t, h.TaskRunPending())
	require.False(t, h.Ready())
	out, total := make([]CQE, n), 0
	for h.TaskRunPending() {
		require.NoError(t, h.Submit())
		total += h.Reap(out)
	}
	require.Equal(t, n, total)
	h.pool.Put(buf)
}

func TestWaitEndsByItself(t *testing.T) {
	// A wait ends with its timeout and without an error, and with timeout 0 it is none: the timeout is all there is to come.
	everywhere(t, Params{Entries: 4}, func(t *testing.T, h *host) {
		require.NoError(t, h.SubmitAndWait(0))
		require.Zero(t, h.Stats().Waits)
		for start := time.Now(); ; { // once at least, however late it is by now
			require.NoError(t, h.SubmitAndWait(3*time.Millisecond))
			if time.Since(start) >= 3*time.Millisecond {
				break
			}
		}
		require.False(t, h.Ready())
		require.NotZero(t, h.Stats().Waits)
	})
}

func TestWaitSubmitsAndReturnsAtOnceWhenReady(t *testing.T) {
	// With a completion in the queue SubmitAndWait submits and does not wait, even when that blocks for good.
	everywhere(t, Params{Entries: 4}, func(t *testing.T, h *host) {
		r, w := pipe(t)
		buf := h.pool.Get(1)
		h.next(t, 1).Nop()
		require.NoError(t, h.Submit())
		require.True(t, h.Ready())
		h.next(t, 2).Read(r, address(buf), 1, ^uint64(0), 0)
		require.NoError(t, h.SubmitAndWait(-1))
		require.Zero(t, h.Pending())
		require.Equal(t, 1, h.Reap(make([]CQE, 4)))
		unix.Write(w, []byte("x"))
		require.Equal(t, int32(1), h.collect(t, 1)[2].Res)
		h.pool.Put(buf)
	})
}

func TestSignalsDoNotDisturb(t *testing.T) {
	// The preemption signal of the Go runtime ends waits without harm: a waiting thread is bombarded with it, with collections on
	// top, until it has been interrupted often; what it waits for still completes once.
	everywhere(t, Params{Entries: 4}, func(t *testing.T, h *host) {
		r, w := pipe(t)
		buf := h.pool.Get(1)
		h.next(t, 1).Read(r, address(buf), 1, ^uint64(0), 0)
		require.NoError(t, h.Submit())
		tid := unix.Gettid()
		var stop atomic.Bool
		ended := make(chan error)
		go func() {
			for n := 0; !stop.Load(); n++ {
				unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
				if n%64 == 0 {
					runtime.GC()
				}
				runtime.Gosched()
			}
			_, err := unix.Write(w, []byte("x"))
			ended <- err
		}()
		for h.Stats().Interrupted < 20 {
			require.NoError(t, h.SubmitAndWait(-1))
			require.False(t, h.Ready())
		}
		stop.Store(true)
		require.Equal(t, int32(1), h.collect(t, 1)[1].Res)
		require.NoError(t, <-ended)
		require.False(t, h.Ready())
		h.pool.Put(buf)
	})
}

func TestRawWaitLetsTheCollectorRun(t *testing.T) {
	// A thread that waits by a raw system call keeps its P but cannot hold up a collection: with one P, the collector and a
	// goroutine that ends the wait still get their turn.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	h := newHost(t, Params{Entries: 4}, 0)
	h.RawWait = true
	r, w := pipe(t)
	buf := h.pool.Get(1)
	h.next(t, 1).Read(r, address(buf), 1, ^uint64(0), 0)
	require.NoError(t, h.Submit())
	go func() {
		runtime.GC()
		unix.Write(w, []byte("x"))
	}()
	require.Equal(t, int32(1), h.collect(t, 1)[1].Res)
	h.pool.Put(buf)
}

func TestCancel(t *testing.T) {
	// Cancelling what waits ends it with ECANCELED, and what is not there is not found.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		r, _ := pipe(t)
		buf := h.pool.Get(1)
		h.next(t, 1).Read(r, address(buf), 1, ^uint64(0), 0)
		h.next(t, 2).PollAdd(r, unix.POLLIN, true)
		require.NoError(t, h.Submit())
		require.False(t, h.Ready())
		h.next(t, 3).AsyncCancel(1)
		h.next(t, 4).PollRemove(2)
		h.next(t, 5).AsyncCancel(99)
		got := h.collect(t, 5)
		require.Equal(t, unix.ECANCELED, got[1].errno())
		require.Equal(t, unix.ECANCELED, got[2].errno())
		require.Zero(t, got[3].Res)
		require.Zero(t, got[4].Res)
		require.Equal(t, unix.ENOENT, got[5].errno())

		h.next(t, 6).Read(r, address(buf), 1, ^uint64(0), 0)
		h.next(t, 7).PollAdd(r, unix.POLLIN, false)
		require.NoError(t, h.Submit())
		h.next(t, 8).AsyncCancelAny()
		got = h.collect(t, 3)
		require.Equal(t, unix.ECANCELED, got[6].errno())
		require.Equal(t, unix.ECANCELED, got[7].errno())
		require.Equal(t, int32(2), got[8].Res)
		h.pool.Put(buf)
	})
}

func TestCancelRace(t *testing.T) {
	// A read and its cancellation complete once each, and the byte is either read or still there: a goroutine writes
	// while the cancellation is submitted, many times.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		r, w := pipe(t)
		buf := h.pool.Get(1)
		start, ended := make(chan byte), make(chan error)
		go func() {
			defer close(ended)
			for v := range start {
				_, err := unix.Write(w, []byte{v})
				ended <- err
			}
		}()
		for i := range 300 {
			v := byte(i)
			h.next(t, 1).Read(r, address(buf), 1, ^uint64(0), 0)
			require.NoError(t, h.Submit())
			start <- v
			h.next(t, 2).AsyncCancel(1)
			got := h.collect(t, 2)
			require.NoError(t, <-ended)
			switch got[1].errno() {
			case 0:
				require.Equal(t, int32(1), got[1].Res)
				require.Equal(t, v, buf[0])
				require.Contains(t, []unix.Errno{unix.ENOENT, unix.EALREADY}, got[2].errno())
			case unix.ECANCELED:
				require.Zero(t, got[2].Res)
				var left [2]byte
				n, err := unix.Read(r, left[:])
				require.NoError(t, err)
				require.Equal(t, []byte{v}, left[:n])
			default:
				t.Fatalf("read ended with %v", got[1].errno())
			}
		}
		close(start)
		<-ended
		h.pool.Put(buf)
	})
}

func TestPoll(t *testing.T) {
	// A multishot poll reports each arrival until it is removed, a simple one once.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		require.NoError(t, err)
		defer unix.Close(fd)
		ring := func() {
			_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			require.NoError(t, err)
		}
		h.next(t, 1).PollAdd(fd, unix.POLLIN, true)
		require.NoError(t, h.Submit())
		for range 5 {
			ring()
			c := h.collect(t, 1)[1]
			require.NotZero(t, c.Res&unix.POLLIN)
			require.NotZero(t, c.Flags&IORING_CQE_F_MORE)
		}
		h.next(t, 2).PollRemove(1)
		got := h.collect(t, 2)
		require.Zero(t, got[1].Flags&IORING_CQE_F_MORE)
		h.next(t, 3).PollAdd(fd, unix.POLLIN, false)
		require.Zero(t, h.collect(t, 1)[3].Flags&IORING_CQE_F_MORE)
	})
}

func TestTimeouts(t *testing.T) {
	// A timeout ends with ETIME, by the count of completions, or by its removal.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		mem := h.pool.Get(2 * int(unsafe.Sizeof(Timespec{})))
		ts := unsafe.Slice((*Timespec)(unsafe.Pointer(&mem[0])), 2)
		ts[0], ts[1] = Timespec{Nsec: 1000}, Timespec{Sec: 3600}
		h.next(t, 1).Timeout(address(mem), 0, 0)
		require.Equal(t, unix.ETIME, h.collect(t, 1)[1].errno())
		h.next(t, 2).Timeout(address(mem[16:]), 1, 0)
		h.next(t, 3).Nop()
		require.Zero(t, h.collect(t, 2)[2].Res)
		h.next(t, 4).Timeout(address(mem[16:]), 0, 0)
		require.NoError(t, h.Submit())
		h.next(t, 5).TimeoutRemove(4)
		got := h.collect(t, 2)
		require.Equal(t, unix.ECANCELED, got[4].errno())
		require.Zero(t, got[5].Res)
		h.pool.Put(mem)
	})
}

func TestSockets(t *testing.T) {
	// Bytes and messages cross a socket pair: Send to Recv, Sendmsg to Recvmsg with vectors in mapped memory.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		mem := h.pool.Get(4096)
		defer h.pool.Put(mem)
		clear(mem)
		copy(mem, "hello, world")
		h.next(t, 1).Recv(fds[1], address(mem[100:]), 12, unix.MSG_WAITALL)
		h.next(t, 2).Send(fds[0], address(mem), 12, 0)
		got := h.collect(t, 2)
		require.Equal(t, []int32{12, 12}, []int32{got[1].Res, got[2].Res})
		require.Equal(t, "hello, world", string(mem[100:112]))

		iov := unsafe.Slice((*unix.Iovec)(unsafe.Pointer(&mem[1024])), 3)
		iov[0] = unix.Iovec{Base: &mem[7], Len: 5}
		iov[1] = unix.Iovec{Base: &mem[0], Len: 7}
		iov[2] = unix.Iovec{Base: &mem[200], Len: 12}
		msgs := unsafe.Slice((*unix.Msghdr)(unsafe.Pointer(&mem[2048])), 2)
		msgs[0].Iov, msgs[0].Iovlen = &iov[0], 2
		msgs[1].Iov, msgs[1].Iovlen = &iov[2], 1
		h.next(t, 3).Sendmsg(fds[0], address(mem[2048:]), 0)
		h.next(t, 4).Recvmsg(fds[1], address(mem[2048+unsafe.Sizeof(msgs[0]):]), unix.MSG_WAITALL)
		got = h.collect(t, 2)
		require.Equal(t, []int32{12, 12}, []int32{got[3].Res, got[4].Res})
		require.Equal(t, "worldhello, ", string(mem[200:212]))
	})
}

func TestNoHeapAllocation(t *testing.T) {
	// A turn of the loop allocates nothing on the Go heap.
	h := newHost(t, Params{Entries: 8}, 0)
	out := make([]CQE, 8)
	for _, raw := range []bool{false, true} {
		h.RawWait = raw
		require.Zero(t, testing.AllocsPerRun(100, func() {
			h.Next().Nop()
			h.Next().Nop()
			_ = h.SubmitAndWait(time.Second)
			h.Reap(out)
			_ = h.SubmitAndWait(time.Microsecond)
		}))
	}
}

func TestStuck(t *testing.T) {
	// The flag that says that work is due can be up while there is none. Submit does not take it back; it tells so when it has found nothing
	// twice, and the completion of a poll puts it right.
	h := newHost(t, Params{Entries: 4}, 0)
	if h.setup.flags&setupDeferTaskrun == 0 {
		return // before Linux 6.1 nothing is deferred
	}
	r, w := pipe(t)
	h.next(t, 1).PollAdd(r, unix.POLLIN, true)
	require.NoError(t, h.Submit())
	require.False(t, h.Stuck())
	atomic.OrUint32(h.sq.kflags, sqTaskrun)
	for range fruitlessMax {
		require.False(t, h.Stuck())
		require.NoError(t, h.Submit())
	}
	require.True(t, h.Stuck())
	unix.Write(w, []byte("x"))
	require.NoError(t, h.Submit())
	require.False(t, h.Stuck())
	require.False(t, h.TaskRunPending())
	require.Equal(t, 1, h.Reap(make([]CQE, 4)))
}
