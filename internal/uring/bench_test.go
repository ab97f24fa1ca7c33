package uring

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/membuf"
)

// echoEnv makes the test binary the peer of BenchmarkWait.
const echoEnv = "URING_TEST_ECHO"

// echo sends back every byte it gets on descriptor 3, with raw system calls so that it costs the same each time.
func echo() {
	mem := membuf.NewPool(0).Get(1)
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, 3, address(mem), 1)
		if errno == unix.EINTR {
			continue
		}
		if n == 0 || errno != 0 {
			return
		}
		unix.RawSyscall(unix.SYS_WRITE, 3, address(mem), 1)
	}
}

// startEcho returns a socket whose peer is a process that echoes.
func startEcho(b *testing.B) int {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(b, err)
	peer := os.NewFile(uintptr(fds[1]), "peer")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), echoEnv+"=1")
	cmd.ExtraFiles = []*os.File{peer}
	require.NoError(b, cmd.Start())
	peer.Close()
	b.Cleanup(func() {
		unix.Close(fds[0])
		_ = cmd.Wait()
	})
	return fds[0]
}

// cpu is what this process has used of the processors.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure reports the CPU per operation of what follows until the returned function is called.
func measure(b *testing.B) func() {
	start := cpu()
	b.ResetTimer()
	return func() {
		b.StopTimer()
		b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
	}
}

// wayName names a way of blocking.
func wayName(raw bool) string {
	if raw {
		return "raw"
	}
	return "syscall"
}

func BenchmarkWait(b *testing.B) {
	// What does a wait cost with each way of blocking? A byte goes to another process and comes back, the loop sleeps in between:
	// alone, and with goroutines of the same process that want to run now and then.
	for _, busy := range []bool{false, true} {
		for _, raw := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/busy=%v", wayName(raw), busy), func(b *testing.B) {
				h := newHost(b, Params{Entries: 8}, 0)
				h.RawWait = raw
				fd := startEcho(b)
				mem := h.pool.Get(2)
				defer h.pool.Put(mem)
				stop := make(chan bool)
				if busy {
					go tickUntil(stop)
				}
				out := make([]CQE, 4)
				done := measure(b)
				for range b.N {
					h.Next().Recv(fd, address(mem), 1, 0)
					sendQuietly(h, fd, address(mem[1:]))
					for h.Reap(out) == 0 {
						if err := h.SubmitAndWait(-1); err != nil {
							b.Fatal(err)
						}
					}
				}
				done()
				b.ReportMetric(float64(h.Stats().Waits)/float64(b.N), "waits/op")
				close(stop)
			})
		}
	}
}

// sendQuietly sends a byte without a completion, so that a wait is for the answer alone.
func sendQuietly(h *host, fd int, addr uintptr) {
	s := h.Next()
	s.Send(fd, addr, 1, 0)
	s.Flags = IOSQE_CQE_SKIP_SUCCESS
}

// tickUntil is a goroutine with a timer of its own, as a control plane has.
func tickUntil(stop chan bool) {
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

func BenchmarkWaitGoPeer(b *testing.B) {
	// The same between a loop and a goroutine of the same process: the goroutine blocks in an ordinary read of a socket. With
	// one P the raw wait is a disaster that shows why it must leave one for others: the goroutine runs when the monitor has preempted the loop.
	for _, raw := range []bool{false, true} {
		b.Run(wayName(raw), func(b *testing.B) {
			h := newHost(b, Params{Entries: 8}, 0)
			h.RawWait = raw
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(b, err)
			defer unix.Close(fds[1])
			defer unix.Close(fds[0])
			ended := make(chan bool)
			go func() {
				defer close(ended)
				buf := make([]byte, 1)
				for {
					if n, err := unix.Read(fds[1], buf); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
						return
					}
					_, _ = unix.Write(fds[1], buf)
				}
			}()
			mem := h.pool.Get(2)
			defer h.pool.Put(mem)
			out := make([]CQE, 4)
			done := measure(b)
			for range b.N {
				h.Next().Recv(fds[0], address(mem), 1, 0)
				sendQuietly(h, fds[0], address(mem[1:]))
				for h.Reap(out) == 0 {
					if err := h.SubmitAndWait(-1); err != nil {
						b.Fatal(err)
					}
				}
			}
			done()
			_ = unix.Shutdown(fds[0], unix.SHUT_RDWR)
			<-ended
		})
	}
}

func BenchmarkIdle(b *testing.B) {
	// What does a loop with nothing to do cost? One operation is 50 ms of waiting, which the runtime may interrupt.
	for _, raw := range []bool{false, true} {
		b.Run(wayName(raw), func(b *testing.B) {
			h := newHost(b, Params{Entries: 8}, 0)
			h.RawWait = raw
			done := measure(b)
			for range b.N {
				end := time.Now().Add(50 * time.Millisecond)
				for left := time.Until(end); left > 0; left = time.Until(end) {
					if err := h.SubmitAndWait(left); err != nil {
						b.Fatal(err)
					}
				}
			}
			done()
			b.ReportMetric(float64(h.Stats().Waits)/float64(b.N), "waits/op")
		})
	}
}

func BenchmarkNop(b *testing.B) {
	// The price of the ring itself, per operation.
	for _, batch := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			h := newHost(b, Params{Entries: 64}, 0)
			out := make([]CQE, batch)
			done := measure(b)
			for i := 0; i < b.N; i += batch {
				for range batch {
					h.Next().Nop()
				}
				for got := 0; got < batch; got += h.Reap(out) {
					if err := h.SubmitAndWait(-1); err != nil {
						b.Fatal(err)
					}
				}
			}
			done()
		})
	}
}

const (
	benchFile  = 64 << 20
	benchBlock = 4096
)

// places are file systems that treat buffered writes differently.
var places = map[string]string{"ext4": "/tmp", "tmpfs": "/dev/shm"}

// benchOn runs bench on a file in the page cache on each file system.
func benchOn(b *testing.B, bench func(b *testing.B, fd int)) {
	for name, dir := range places {
		b.Run(name, func(b *testing.B) {
			fd := tempFile(b, dir, benchFile)
			block := make([]byte, 1<<20)
			for off := int64(0); off < benchFile; off += int64(len(block)) {
				_, err := unix.Pwrite(fd, block, off)
				require.NoError(b, err)
			}
			require.NoError(b, unix.Fsync(fd))
			bench(b, fd)
		})
	}
}

// scattered is the offset of the i-th block of a walk that jumps about the file.
func scattered(i int) int64 {
	return int64(uint32(i)*2654435761%(benchFile/benchBlock)) * benchBlock
}

func BenchmarkRead4K(b *testing.B) {
	// A page-cache hit: pread inline, raw pread, and through the ring in batches. The kernel does it in the submission.
	benchOn(b, func(b *testing.B, fd int) {
		b.Run("inline", func(b *testing.B) {
			mem := make([]byte, benchBlock)
			done := measure(b)
			for i := range b.N {
				_, _ = unix.Pread(fd, mem, scattered(i))
			}
			done()
		})
		b.Run("inline-raw", func(b *testing.B) {
			pool := membuf.NewPool(0)
			mem := pool.Get(benchBlock)
			done := measure(b)
			for i := range b.N {
				unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), address(mem), benchBlock, uintptr(scattered(i)), 0, 0)
			}
			done()
		})
		benchRing(b, func(s *SQE, addr uintptr, off uint64) { s.Read(fd, addr, benchBlock, off, 0) })
	})
}

func BenchmarkWrite4K(b *testing.B) {
	// A write into the page cache: pwrite inline, raw pwrite, and through the ring, which hands it to a kernel worker where the file
	// system cannot promise not to block.
	benchOn(b, func(b *testing.B, fd int) {
		b.Run("inline", func(b *testing.B) {
			mem := make([]byte, benchBlock)
			done := measure(b)
			for i := range b.N {
				_, _ = unix.Pwrite(fd, mem, scattered(i))
			}
			done()
		})
		b.Run("inline-raw", func(b *testing.B) {
			pool := membuf.NewPool(0)
			mem := pool.Get(benchBlock)
			done := measure(b)
			for i := range b.N {
				unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(fd), address(mem), benchBlock, uintptr(scattered(i)), 0, 0)
			}
			done()
		})
		benchRing(b, func(s *SQE, addr uintptr, off uint64) { s.Write(fd, addr, benchBlock, off, 0) })
	})
}

// benchRing runs operations of one block in batches through the ring.
func benchRing(b *testing.B, prepare func(s *SQE, addr uintptr, off uint64)) {
	for _, raw := range []bool{false, true} {
		for _, batch := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("ring/%s/batch=%d", wayName(raw), batch), func(b *testing.B) {
				h := newHost(b, Params{Entries: 64}, 0)
				h.RawWait = raw
				mem := h.pool.Get(32 * benchBlock)
				defer h.pool.Put(mem)
				out := make([]CQE, batch)
				done := measure(b)
				for i := 0; i < b.N; i += batch {
					for k := range batch {
						prepare(h.Next(), address(mem[k*benchBlock:]), uint64(scattered(i+k)))
					}
					if err := turn(h, out); err != nil {
						b.Fatal(err)
					}
				}
				done()
			})
		}
	}
}

// turn submits and waits for len(out) completions.
func turn(h *host, out []CQE) error {
	for got := 0; got < len(out); {
		if err := h.SubmitAndWait(-1); err != nil {
			return err
		}
		n := h.Reap(out[:len(out)-got])
		for _, c := range out[:n] {
			if c.Res < 0 {
				return c.errno()
			}
		}
		got += n
	}
	return nil
}
