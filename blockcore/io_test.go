package blockcore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
)

func TestIOAgainstPread(t *testing.T) {
	// What Tasks write is what pread(2) finds, and the reverse: eight Tasks make random reads, writes and punched holes, each in a zone
	// of its own, and compare with a copy; in the end the file is compared as a whole.
	onEngines(t, func(t *testing.T, c *AioContext) {
		const zones, zoneBytes, steps = 8, 256 << 10, 300
		fd := tempFile(t, zones*zoneBytes)
		model := make([]byte, zones*zoneBytes)
		rng := newRand(t)
		var wg sync.WaitGroup
		for z := range zones {
			own := rand.New(rand.NewPCG(rng.Uint64(), 1))
			wg.Go(func() {
				begin := int64(z * zoneBytes)
				err := c.Do(func(t *Task) error {
					return churn(t, fd, begin, model[begin:begin+zoneBytes], own, steps)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		found := make([]byte, len(model))
		_, err := unix.Pread(fd, found, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(model, found))
	})
}

// churn makes random operations on the bytes of fd from begin on, which zone holds a copy of.
func churn(t *Task, fd int, begin int64, zone []byte, rng *rand.Rand, steps int) error {
	for step := range steps {
		off := rng.Int64N(int64(len(zone)))
		length := 1 + rng.Int64N(min(int64(len(zone))-off, 64<<10))
		p := t.Buffers().Get(int(length))
		err := churnOnce(t, fd, begin, off, zone, p, rng, step)
		t.Buffers().Put(p)
		if err != nil {
			return fmt.Errorf("step %d, %d bytes at %d: %w", step, length, begin+off, err)
		}
	}
	return nil
}

func churnOnce(t *Task, fd int, begin, off int64, zone, p []byte, rng *rand.Rand, step int) error {
	part := zone[off : off+int64(len(p))]
	switch rng.IntN(6) {
	case 0:
		clear(part)
		return t.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, begin+off, int64(len(p)))
	case 1:
		return t.Fdatasync(fd)
	case 2, 3:
		fill(p, step)
		copy(part, p)
		n, err := t.Pwrite(fd, p, begin+off, rng.IntN(2)*unix.RWF_DSYNC)
		if err == nil && n != len(p) {
			err = fmt.Errorf("%d bytes written", n)
		}
		return err
	}
	n, err := t.Pread(fd, p, begin+off)
	if err == nil && !bytes.Equal(p[:n], part) {
		err = fmt.Errorf("read something else, %d bytes", n)
	}
	return err
}

func TestManyOperationsAtOnce(t *testing.T) {
	// More operations than the submission queue and the completion queue hold are all done, each with its own
	// result: ten thousand Tasks start a read in the same turn.
	onEngines(t, func(t *testing.T, c *AioContext) {
		const tasks = 10_000
		fd := tempFile(t, 0)
		content := make([]byte, tasks)
		fill(content, 1)
		_, err := unix.Pwrite(fd, content, 0)
		require.NoError(t, err)
		var p []byte
		var wg sync.WaitGroup
		wg.Add(tasks)
		onLoop(t, c, func() {
			p = c.Buffers().Get(tasks)
			for i := range tasks {
				c.Spawn(BodyFunc(func(t *Task) {
					_, _ = t.Pread(fd, p[i:i+1], int64(i))
					wg.Done()
				}))
			}
		})
		wg.Wait()
		require.True(t, bytes.Equal(content, p))
		onLoop(t, c, func() { c.Buffers().Put(p) })
	})
}

func TestManyOperationsInFlight(t *testing.T) {
	// Ten thousand operations that wait in the kernel at the same time complete at once, more than the completion queue
	// holds, and none is lost: as many Tasks read a byte each from an empty pipe, which is then filled.
	require.Greater(t, 10_000, ringCQEntries)
	c := newTestContext(t, ContextOptions{Engine: EngineURing})
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	var p []byte
	var failed error
	left := 10_000
	all := make(chan struct{})
	onLoop(t, c, func() {
		p = c.Buffers().Get(left)
		for i := range left {
			c.Spawn(BodyFunc(func(t *Task) {
				if n, err := t.Pread(pipe[0], p[i:i+1], 0); n != 1 || err != nil {
					failed = errors.Join(failed, fmt.Errorf("%d bytes, %w", n, err))
				}
				if left--; left == 0 {
					close(all)
				}
			}))
		}
	})
	do(t, c, func(t *Task) error {
		for c.engine.queued() > 0 {
			t.Yield()
		}
		asleep(t)
		return nil
	})
	n, err := unix.Write(pipe[1], bytes.Repeat([]byte{7}, 10_000))
	require.NoError(t, err)
	require.Equal(t, 10_000, n)
	<-all
	require.NoError(t, failed)
	require.Equal(t, 10_000, bytes.Count(p, []byte{7}))
	onLoop(t, c, func() { c.Buffers().Put(p) })
}

func TestErrorsComeBackAsErrno(t *testing.T) {
	// The errno of a system call is what the Task gets, and the context goes on: a table of calls that the kernel refuses.
	full, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(full)
	directory, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(directory)
	readOnly, err := unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(readOnly)
	file := tempFile(t, 4096)
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	table := []struct {
		name string
		want unix.Errno
		call func(t *Task, p []byte) error
	}{
		{"read of no file", unix.EBADF, func(t *Task, p []byte) error { return second(t.Pread(-1, p, 0)) }},
		{"write of no file", unix.EBADF, func(t *Task, p []byte) error { return second(t.Pwrite(1<<30, p, 0, 0)) }},
		{"write of a file that is read-only", unix.EBADF, func(t *Task, p []byte) error { return second(t.Pwrite(readOnly, p, 0, 0)) }},
		{"fdatasync of no file", unix.EBADF, func(t *Task, p []byte) error { return t.Fdatasync(-1) }},
		{"fallocate of no file", unix.EBADF, func(t *Task, p []byte) error { return t.Fallocate(-1, 0, 0, 1) }},
		{"read at a negative offset", unix.EINVAL, func(t *Task, p []byte) error { return second(t.Pread(file, p, -2)) }},
		{"fallocate of nothing", unix.EINVAL, func(t *Task, p []byte) error { return t.Fallocate(file, 0, 0, 0) }},
		{"fdatasync of a pipe", unix.EINVAL, func(t *Task, p []byte) error { return t.Fdatasync(pipe[0]) }},
		{"write to a full device", unix.ENOSPC, func(t *Task, p []byte) error { return second(t.Pwrite(full, p, 0, 0)) }},
		{"read of a directory", unix.EISDIR, func(t *Task, p []byte) error { return second(t.Pread(directory, p, 0)) }},
		{"fallocate of a pipe", unix.ESPIPE, func(t *Task, p []byte) error { return t.Fallocate(pipe[1], 0, 0, 1) }},
		{"unknown flags of a write", unix.EOPNOTSUPP, func(t *Task, p []byte) error { return second(t.Pwrite(file, p, 0, 1<<30)) }},
	}
	onEngines(t, func(t *testing.T, c *AioContext) {
		for _, row := range table {
			err := c.Do(func(t *Task) error {
				p := t.Buffers().Get(512)
				defer t.Buffers().Put(p)
				clear(p)
				return row.call(t, p)
			})
			require.Equal(t, error(row.want), err, row.name)
		}
		do(t, c, func(t *Task) error { return t.Fdatasync(file) })
	})
}

func second(_ int, err error) error { return err }

func TestShortTransfers(t *testing.T) {
	// A read at the end of a file is short and one behind it is empty, as pread(2) has it; an empty buffer is no error; fallocate
	// makes the file longer.
	onEngines(t, func(t *testing.T, c *AioContext) {
		fd := tempFile(t, 1000)
		var got []int
		do(t, c, func(t *Task) error {
			p := t.Buffers().Get(4096)
			defer t.Buffers().Put(p)
			for _, off := range []int64{0, 900, 1000, 5000} {
				n, err := t.Pread(fd, p, off)
				if err != nil {
					return err
				}
				got = append(got, n)
			}
			n, err := t.Pread(fd, p[:0], 0)
			got = append(got, n)
			return errors.Join(err, t.Fallocate(fd, 0, 0, 2000))
		})
		require.Equal(t, []int{1000, 100, 0, 0, 0}, got)
		var st unix.Stat_t
		require.NoError(t, unix.Fstat(fd, &st))
		require.Equal(t, int64(2000), st.Size)
	})
}

func TestIOUnderGarbageCollection(t *testing.T) {
	// The collector, which moves stacks and interrupts threads, does no harm to I/O in flight: Tasks with deep stacks write and
	// read while a goroutine collects without a pause.
	onEngines(t, func(t *testing.T, c *AioContext) {
		const tasks, rounds = 16, 200
		fd := tempFile(t, tasks*4096)
		stop := make(chan struct{})
		var collector, wg sync.WaitGroup
		collector.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
				}
			}
		})
		for i := range tasks {
			wg.Go(func() {
				err := c.Do(func(t *Task) error { return writeAndRead(t, fd, int64(i)*4096, rounds) })
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		close(stop)
		collector.Wait()
	})
}

// writeAndRead goes down and up its stack while it writes and reads a block.
func writeAndRead(t *Task, fd int, off int64, rounds int) error {
	p := t.Buffers().Get(4096)
	defer t.Buffers().Put(p)
	for round := range rounds {
		if err := deepIO(t, fd, off, p, round, round%50); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

func deepIO(t *Task, fd int, off int64, p []byte, round, depth int) error {
	var pad [256]byte
	if depth > 0 {
		pad[depth] = 1
		err := deepIO(t, fd, off, p, round, depth-1)
		pad[depth]++
		return err
	}
	fill(p, round)
	if _, err := t.Pwrite(fd, p, off, 0); err != nil {
		return err
	}
	want := bytes.Clone(p)
	clear(p)
	if _, err := t.Pread(fd, p, off); err != nil {
		return err
	}
	if !bytes.Equal(want, p) {
		return errors.New("read something else than was written")
	}
	return nil
}

func TestRingAllocatesNothing(t *testing.T) {
	// In steady state an operation on io_uring costs no allocation, nor does starting a Task: the allocations of
	// the whole process are counted around ten thousand of each. The few that are allowed are the runtime's own.
	if check.Enabled {
		return // the ledger of a check build is a map
	}
	const rounds, allowed = 10_000, 100
	c := newTestContext(t, ContextOptions{Engine: EngineURing})
	fd := tempFile(t, 4096)
	var before, after runtime.MemStats
	do(t, c, func(t *Task) error {
		body := &oneRead{fd: fd}
		measured := func() error {
			p := t.Buffers().Get(4096)
			defer t.Buffers().Put(p)
			c.Spawn(body)
			if err := second(t.Pread(fd, p, 0)); err != nil {
				return err
			}
			return errors.Join(second(t.Pwrite(fd, p, 0, 0)), body.err)
		}
		for range 100 {
			if err := measured(); err != nil {
				return err
			}
		}
		runtime.ReadMemStats(&before)
		for range rounds {
			if err := measured(); err != nil {
				return err
			}
		}
		runtime.ReadMemStats(&after)
		return nil
	})
	require.LessOrEqual(t, after.Mallocs-before.Mallocs, uint64(allowed))
}

// oneRead is a body that captures nothing.
type oneRead struct {
	fd  int
	err error
}

func (o *oneRead) Run(t *Task) {
	p := t.Buffers().Get(4096)
	_, err := t.Pread(o.fd, p, 0)
	t.Buffers().Put(p)
	o.err = errors.Join(o.err, err)
}

func TestUnavailableEngine(t *testing.T) {
	// An engine that cannot be had is an error that names the context, and nothing stays behind: no goroutine, which
	// TestMain looks for. Both the making and the start of an engine fail.
	broken := errors.New("no such engine")
	_, err := NewAioContext(ContextOptions{Name: "x", newEngine: func(*AioContext) (engine, error) { return nil, broken }})
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, `AioContext "x"`)
	late := &lateEngine{err: os.ErrPermission}
	_, err = NewAioContext(ContextOptions{Name: "x", newEngine: func(*AioContext) (engine, error) { return late, nil }})
	require.ErrorIs(t, err, os.ErrPermission)
	require.True(t, late.closed)
}

// lateEngine fails when it is started.
type lateEngine struct {
	engine
	err    error
	closed bool
}

func (e *lateEngine) start() error { return e.err }
func (e *lateEngine) close()       { e.closed = true }

func TestEngineNames(t *testing.T) {
	// Each kind of engine is what it says, and the automatic choice is one of the two.
	for _, kind := range engineKinds {
		require.Equal(t, kind.String(), newTestContext(t, ContextOptions{Engine: kind}).EngineName())
	}
	require.Contains(t, []string{"io_uring", "threads"}, newTestContext(t, ContextOptions{}).EngineName())
	require.Equal(t, "auto", EngineAuto.String())
	require.Equal(t, "EngineKind(9)", EngineKind(9).String())
}

// givingBack is an engine that starts nothing: it gives each operation back as the ring does when it can start no worker.
type givingBack struct{ engine }

func (g givingBack) queue(o *operation) {
	o.result = -int32(unix.ECANCELED)
	o.task.wakeSoon()
}

// Goal: what the kernel gives back undone is done all the same, and its own errors are told; method: an engine that gives everything
// back, random operations against a copy, a flush, and a flush of what is no file.
func TestOperationsGivenBack(t *testing.T) {
	c, err := NewAioContext(ContextOptions{newEngine: func(c *AioContext) (engine, error) {
		e, err := EngineThreads.open(c)
		return givingBack{e}, err
	}})
	require.NoError(t, err)
	defer c.Close()
	fd := tempFile(t, 256<<10)
	model := make([]byte, 256<<10)
	require.NoError(t, c.Do(func(t *Task) error {
		if err := churn(t, fd, 0, model, rand.New(rand.NewPCG(1, 1)), 100); err != nil {
			return err
		}
		return t.Fdatasync(fd)
	}))
	found := make([]byte, len(model))
	_, err = unix.Pread(fd, found, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(model, found))
	require.ErrorIs(t, c.Do(func(t *Task) error { return t.Fdatasync(-1) }), unix.EBADF)
}
