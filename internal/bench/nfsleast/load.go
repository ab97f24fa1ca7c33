package nfsleast

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/bench/blocking"
	"nbd-dataplane/internal/bench/loadgen"
)

// Limits of a Spec.
const (
	depthMax = 256
	connsMax = 16
	blockMax = 1 << 20
)

// Spec says what a Load does.
type Spec struct {
	URI        string // nfs://HOST/DIRECTORY/FILE
	Write      bool
	Sequential bool // each connection walks its own share of the file; else uniformly random
	BlockBytes int
	Depth      int // calls in flight, of all connections together
	Conns      int
	FlushEvery int // a COMMIT after so many writes of a connection; 0 = never
	Seed       uint64
}

func (s Spec) validate() error {
	if s.BlockBytes < 512 || s.BlockBytes > blockMax || s.Depth < 1 || s.Depth > depthMax || s.Conns < 1 || s.Conns > min(connsMax, s.Depth) || s.FlushEvery < 0 {
		return errors.New("want blocks up to 1 MiB, a depth up to 256, and up to 16 connections but no more than that")
	}
	return nil
}

// Load is connections to one server. It is used by one goroutine at a time.
type Load struct {
	// Immutable.
	workers []*worker
}

// Open finds the file and connects.
func Open(s Spec) (*Load, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	f, err := find(s.URI)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", s.URI, err)
	}
	blocks := f.sizeBytes / int64(s.BlockBytes)
	if blocks < int64(s.Conns) {
		return nil, fmt.Errorf("a file of %d bytes has not enough blocks", f.sizeBytes)
	}
	l := &Load{}
	for i := range s.Conns {
		fd, err := f.connect()
		if err != nil {
			l.Close()
			return nil, err
		}
		l.workers = append(l.workers, newWorker(s, f, fd, i, blocks))
	}
	return l, nil
}

// Run works until the time is over and everything was answered. After an error the connections are good for nothing but Close.
func (l *Load) Run(d time.Duration) (loadgen.Result, error) {
	if want := len(l.workers) + 2; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(l.workers))
	for i, w := range l.workers {
		wg.Go(func() { errs[i] = w.run(d) })
	}
	wg.Wait()
	total := loadgen.Result{Latency: newHistogram()}
	for _, w := range l.workers {
		r := w.result
		total.Reads, total.Writes, total.Flushes, total.Bytes = total.Reads+r.Reads, total.Writes+r.Writes, total.Flushes+r.Flushes, total.Bytes+r.Bytes
		total.ClientCPU += r.ClientCPU
		total.Elapsed = max(total.Elapsed, r.Elapsed)
		total.Latency.Merge(r.Latency)
	}
	return total, errors.Join(errs...)
}

// Close ends the connections.
func (l *Load) Close() {
	for _, w := range l.workers {
		unix.Close(w.fd)
	}
	l.workers = nil
}

// slot is a place for a call in flight. Its index is the transaction id.
type slot struct {
	proc   wire.Proc
	busy   bool
	call   []byte
	sentNs int64
}

// worker has one connection.
type worker struct {
	// Immutable.
	spec   Spec
	fd     int
	first  int64 // block of its share
	blocks int64
	epoch  time.Time
	reads  []byte // templates
	writes []byte
	commit []byte

	// Owned by the worker's thread.
	slots      []slot
	free       []int
	out        blocking.Vector
	payload    []byte
	in         []byte
	filled     int // of in: the beginning of a record
	skip       int // bytes that are still to come of the record before it
	random     *rand.Rand
	next       int64
	sinceFlush int
	nowNs      int64
	result     loadgen.Result
}

const inBytes = 1 << 20

func newWorker(s Spec, f file, fd, i int, blocks int64) *worker {
	w := &worker{spec: s, fd: fd, blocks: blocks, epoch: time.Now(), payload: make([]byte, s.BlockBytes), random: rand.New(rand.NewPCG(s.Seed, uint64(i)))}
	if s.Sequential {
		w.blocks = blocks / int64(s.Conns)
		w.first = int64(i) * w.blocks
	}
	w.reads, w.writes, w.commit = f.template(wire.ProcRead, s.BlockBytes), f.template(wire.ProcWrite, s.BlockBytes), f.template(wire.ProcCommit, 0)
	depth := s.Depth / s.Conns
	if i < s.Depth%s.Conns {
		depth++
	}
	for n := range depth {
		w.slots = append(w.slots, slot{call: make([]byte, 0, len(w.writes))})
		w.free = append(w.free, n)
	}
	return w
}

func (w *worker) run(d time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if w.in == nil {
		w.in = make([]byte, inBytes)
	}
	w.result = loadgen.Result{Latency: newHistogram()}
	cpu := threadCPU()
	w.look()
	begin := w.nowNs
	for {
		for len(w.free) > 0 && w.nowNs < begin+int64(d) {
			w.issue()
		}
		if err := w.out.Send(w.fd); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
		w.out.Reset()
		if len(w.free) == len(w.slots) {
			break
		}
		n, err := blocking.Receive(w.fd, w.in[w.filled:])
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		w.look()
		if err := w.accept(n); err != nil {
			return err
		}
	}
	w.result.Elapsed, w.result.ClientCPU = time.Duration(w.nowNs-begin), threadCPU()-cpu
	return nil
}

func (w *worker) look() { w.nowNs = int64(time.Since(w.epoch)) }

// issue makes the next call.
func (w *worker) issue() {
	i := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	s := &w.slots[i]
	s.busy, s.sentNs = true, w.nowNs
	template := w.reads
	switch s.proc = wire.ProcRead; {
	case w.spec.FlushEvery > 0 && w.sinceFlush >= w.spec.FlushEvery:
		w.sinceFlush = 0
		s.proc, template = wire.ProcCommit, w.commit
	case w.spec.Write:
		w.sinceFlush++
		s.proc, template = wire.ProcWrite, w.writes
	}
	s.call = append(s.call[:0], template...)
	place(s.call, s.proc, uint32(i), w.offset())
	w.out.Add(s.call)
	if s.proc == wire.ProcWrite {
		w.out.Add(w.payload)
	}
}

func (w *worker) offset() int64 {
	block := w.next
	if w.spec.Sequential {
		w.next = (w.next + 1) % w.blocks
	} else {
		block = w.random.Int64N(w.blocks)
	}
	return (w.first + block) * int64(w.spec.BlockBytes)
}

// accept goes through n bytes that have come behind those that are there. Data is passed over.
func (w *worker) accept(n int) error {
	b := w.in[:w.filled+n]
	for {
		n := min(w.skip, len(b))
		b, w.skip = b[n:], w.skip-n
		if len(b) < startBytes {
			w.filled = copy(w.in, b)
			return nil
		}
		r, err := parseStart(b, w.spec.BlockBytes)
		if err != nil {
			return err
		}
		if int(r.xid) >= len(w.slots) || !w.slots[r.xid].busy {
			return fmt.Errorf("reply for call %d: %w", r.xid, wire.ErrMalformed)
		}
		w.skip = r.bytes
		w.complete(int(r.xid))
	}
}

func (w *worker) complete(i int) {
	s := &w.slots[i]
	s.busy = false
	w.free = append(w.free, i)
	switch s.proc {
	case wire.ProcRead:
		w.result.Reads++
		w.result.Bytes += int64(w.spec.BlockBytes)
	case wire.ProcWrite:
		w.result.Writes++
		w.result.Bytes += int64(w.spec.BlockBytes)
	default:
		w.result.Flushes++
	}
	_ = w.result.Latency.RecordValue(w.nowNs - s.sentNs) // one out of range is a stall of minutes, which ends the run
}

func threadCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(2*time.Minute), 3) }
