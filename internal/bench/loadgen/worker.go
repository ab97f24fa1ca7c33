package loadgen

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// slot is one of the requests a connection may have outstanding. Its cookie holds its
// index and how often it was used, so that a reply sent twice or late is noticed.
type slot struct {
	index  uint32
	use    uint32
	typ    uint16
	busy   bool
	offset int64
	length int
	got    int   // bytes of data and holes that came
	sentNs int64 // since the worker's epoch
	buf    []byte
}

func (s *slot) cookie() uint64 { return uint64(s.use)<<32 | uint64(s.index) }

func (s *slot) String() string {
	return fmt.Sprintf("command %d at [%d, +%d)", s.typ, s.offset, s.length)
}

// take books a chunk of a read's answer.
func (s *slot) take(offset int64, length int) error {
	s.got += length
	if s.typ != cmdRead || offset < s.offset || offset+int64(length) > s.offset+int64(s.length) || s.got > s.length {
		return fmt.Errorf("chunk [%d, +%d) outside the answer to %s", offset, length, s)
	}
	return nil
}

// worker drives one connection. All of it but the fields under Immutable belongs to the
// thread in run while there is one, and to the caller of Run otherwise.
type worker struct {
	// Immutable.
	spec  Spec
	conn  int
	fd    int
	info  exportInfo
	span  span
	epoch time.Time

	// Owned by the worker's thread.
	slots      []slot
	free       []*slot
	send       *sendQueue
	recv       receiver
	payload    []byte // of every write, unless Verify gives each slot its own
	random     generator
	next       int64 // block, of a sequential walk
	sinceFlush int   // writes
	nowNs      int64 // since epoch, read once a turn
	heardNs    int64 // when the server was last heard of
	poll       unix.PollFd
	tick       unix.Timespec

	// Owned by the worker's thread: the run.
	limit  Limit
	issued int64
	endNs  int64
	result Result
}

func newWorker(spec Spec, conn, fd int, info exportInfo, part span) *worker {
	w := &worker{
		spec: spec, conn: conn, fd: fd, info: info, span: part, epoch: time.Now(),
		slots:   make([]slot, spec.Depth),
		free:    make([]*slot, 0, spec.Depth),
		send:    newSendQueue(spec.Depth),
		payload: make([]byte, spec.BlockBytes),
		random:  newGenerator(spec.Seed, conn),
		poll:    unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT},
		tick:    unix.NsecToTimespec(receiveTick.Nanoseconds()),
	}
	fillPattern(w.payload, part.offset)
	w.recv.w = w
	for i := range w.slots {
		w.slots[i].index = uint32(i)
		if spec.Verify {
			w.slots[i].buf = make([]byte, spec.BlockBytes)
		}
		w.free = append(w.free, &w.slots[i])
	}
	return w
}

// run works until the limit is reached and everything outstanding was answered.
func (w *worker) run(limit Limit) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w.limit, w.issued = limit, 0
	if w.recv.buf == nil { // not before: connections that stay idle are cheap
		w.recv.buf = make([]byte, receiveBytes)
	}
	w.result = Result{Latency: newHistogram()}
	cpu := threadCPU()
	w.look()
	begin := w.nowNs
	w.heardNs = begin
	w.endNs = begin + limit.Duration.Nanoseconds()
	err := w.loop()
	w.result.Elapsed = time.Duration(w.nowNs - begin)
	w.result.ClientCPU = threadCPU() - cpu
	return err
}

func (w *worker) loop() error {
	for {
		w.fill()
		if err := w.send.flush(w.fd); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
		if len(w.free) == len(w.slots) {
			return nil
		}
		if err := w.receive(); err != nil {
			return err
		}
	}
}

// fill uses every free slot for a request, as long as the run lasts.
func (w *worker) fill() {
	for len(w.free) > 0 && !w.send.full() && !w.over() {
		s := w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
		w.issue(s)
	}
}

func (w *worker) over() bool {
	if w.limit.Requests > 0 {
		return w.issued >= w.limit.Requests
	}
	return w.nowNs >= w.endNs
}

// issue makes the next request of the load and queues it.
func (w *worker) issue(s *slot) {
	s.busy, s.got, s.sentNs = true, 0, w.nowNs
	s.use++
	w.issued++
	if w.spec.FlushEvery > 0 && w.sinceFlush >= w.spec.FlushEvery {
		w.sinceFlush = 0
		s.typ, s.offset, s.length = cmdFlush, 0, 0
		w.send.push(0, cmdFlush, s.cookie(), 0, 0, nil)
		return
	}
	s.offset, s.length = w.span.offset+w.block()*w.spec.StepBytes, w.spec.BlockBytes
	if w.reads() {
		s.typ = cmdRead
		w.send.push(0, cmdRead, s.cookie(), s.offset, s.length, nil)
		return
	}
	s.typ = cmdWrite
	w.sinceFlush++
	w.send.push(w.writeFlags(), cmdWrite, s.cookie(), s.offset, s.length, w.writePayload(s))
}

func (w *worker) block() int64 {
	if !w.spec.Sequential {
		return int64(w.random.below(uint64(w.span.blocks)))
	}
	b := w.next
	if w.next++; w.next == w.span.blocks {
		w.next = 0
	}
	return b
}

func (w *worker) reads() bool {
	if w.spec.Mode == Mixed {
		return w.random.below(100) < uint64(w.spec.ReadPercent)
	}
	return w.spec.Mode == Read
}

func (w *worker) writeFlags() uint16 {
	if w.spec.FUA {
		return cmdFlagFUA
	}
	return 0
}

func (w *worker) writePayload(s *slot) []byte {
	if !w.spec.Verify {
		return w.payload
	}
	fillPattern(s.buf, s.offset)
	return s.buf
}

// receive waits for replies, and for room in the socket if there is more to send: a
// server may stop reading until its replies are taken.
func (w *worker) receive() error {
	wait := w.send.empty()
	if !wait {
		w.poll.Revents = 0
		poll(&w.poll, &w.tick)
		if w.poll.Revents&^unix.POLLOUT == 0 {
			return w.silence()
		}
	}
	n, errno := recv(w.fd, w.recv.space(), wait)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return w.silence()
	case errno != 0:
		return fmt.Errorf("receiving: %w", lost(errno))
	case n == 0:
		return errClosed
	}
	w.look()
	w.heardNs = w.nowNs
	if w.spec.Heard != nil {
		w.spec.Heard(w.conn, w.epoch.Add(time.Duration(w.nowNs)))
	}
	return w.recv.accept(n)
}

func (w *worker) look() { w.nowNs = int64(time.Since(w.epoch)) }

// silence is called when nothing came; it ends a run whose server is dead.
func (w *worker) silence() error {
	w.look()
	if w.nowNs-w.heardNs > silenceMax.Nanoseconds() {
		return errSilent
	}
	return nil
}

var errCookie = errors.New("reply with a cookie that no outstanding request has")

// slotOf finds the request that a reply answers.
func (w *worker) slotOf(cookie uint64) (*slot, error) {
	i := uint32(cookie)
	if int(i) >= len(w.slots) || !w.slots[i].busy || w.slots[i].cookie() != cookie {
		return nil, fmt.Errorf("cookie %#x: %w", cookie, errCookie)
	}
	return &w.slots[i], nil
}

// complete counts a request whose answer is all here.
func (w *worker) complete(s *slot) error {
	if s.typ == cmdRead && s.got != s.length {
		return fmt.Errorf("answer to %s has only %d bytes", s, s.got)
	}
	s.busy = false
	w.free = append(w.free, s)
	switch s.typ {
	case cmdRead:
		w.result.Reads++
	case cmdWrite:
		w.result.Writes++
	default:
		w.result.Flushes++
	}
	w.result.Bytes += int64(s.length)
	// A latency out of the histogram's range is a stall of minutes: counted as its end.
	_ = w.result.Latency.RecordValue(min(w.nowNs-s.sentNs, latencyMaxNs))
	return nil
}

// threadCPU returns the processor time of the calling thread.
func threadCPU() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, latencyMaxNs, latencyDigits)
}
