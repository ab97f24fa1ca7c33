package uring

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
)

// Params says what ring is wanted.
type Params struct {
	Entries   uint32 // places in the submission queue; rounded up to a power of two
	CQEntries uint32 // places in the completion queue, the same; 0 for twice Entries

	// Owns reports whether n bytes at addr may be given to the kernel. Check builds ask it for every address of
	// every SQE before it is submitted. Nil allows everything.
	Owns func(addr uintptr, n int) bool
}

// Ring is one io_uring. Its methods, but for Stats, belong to the thread that has called Enable.
type Ring struct {
	// Immutable.
	fd       int
	setup    setupParams
	owns     func(addr uintptr, n int) bool
	rings    unsafe.Pointer // the mapping of both queues
	ringsLen uintptr
	sqes     unsafe.Pointer // the mapping of the entries
	sqesLen  uintptr
	args     *waitArgs // a mapping of its own
	probed   [probeOps]bool

	// RawWait chooses how SubmitAndWait blocks.
	//
	// True: by a raw system call, which keeps the P. It is the cheaper one, but a goroutine that becomes ready meanwhile
	// finds one P less, with no other P it waits for the runtime's monitor to interrupt us, some 25 ms; and the
	// monitor stays awake and does interrupt us, some 50 times a second. So let the wait be short and GOMAXPROCS count
	// the loops on top of what the rest needs.
	//
	// False: by an ordinary system call, which hands the P over and takes one back on return.
	//
	// Owned by the context.
	RawWait bool

	// Owned by the context.
	sq submissions
	cq completions
	// fruitless counts the Submits in a row that found no work where the kernel had said that there was some.
	fruitless int
	tid       int // the owner, in check builds

	// Safe from anywhere.
	counters counters
}

// waitArgs are the arguments of a wait. They are in mapped memory as everything the kernel is
// pointed to, and because a Go stack may move.
type waitArgs struct {
	arg geteventsArg
	ts  Timespec
}

const waitArgsLen = 4096

// New makes a ring that is not enabled yet, from any thread. Errors wrap the errno; those that say that the
// host offers no io_uring wrap ErrUnavailable too.
func New(p Params) (*Ring, error) {
	return newRing(p, setup)
}

func newRing(p Params, call setupCall) (*Ring, error) {
	if p.Entries == 0 {
		return nil, fmt.Errorf("uring: set up ring: no entries asked for: %w", unix.EINVAL)
	}
	if p.CQEntries == 0 {
		p.CQEntries = 2 * p.Entries
	}
	fd, sp, err := climb(p, call)
	if err != nil {
		return nil, err
	}
	r := &Ring{fd: fd, setup: *sp, owns: p.Owns}
	if err := r.mapMemory(); err != nil {
		return nil, abandon(r, err)
	}
	if err := r.probeOps(); err != nil {
		return nil, abandon(r, err)
	}
	return r, nil
}

// abandon closes a ring that could not be made, for err.
func abandon(r *Ring, err error) error {
	_ = r.Close()
	return err
}

// mapMemory maps the queues and the entries, and memory for arguments.
func (r *Ring) mapMemory() error {
	var err error
	p := &r.setup
	r.ringsLen = uintptr(max(p.sqOff.array+4*p.sqEntries, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(CQE{}))))
	if p.flags&setupNoSQArray != 0 {
		r.ringsLen = uintptr(p.cqOff.cqes + p.cqEntries*uint32(unsafe.Sizeof(CQE{})))
	}
	r.sqesLen = uintptr(p.sqEntries) * unsafe.Sizeof(SQE{})
	if r.rings, err = mmapRing(r.fd, offSQRing, r.ringsLen); err != nil {
		return fmt.Errorf("uring: map queues: %w", err)
	}
	if r.sqes, err = mmapRing(r.fd, offSQEs, r.sqesLen); err != nil {
		return fmt.Errorf("uring: map entries: %w", err)
	}
	args, err := unix.MmapPtr(-1, 0, nil, waitArgsLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("uring: map arguments: %w", err)
	}
	r.args = (*waitArgs)(args)
	r.sq = newSubmissions(r.rings, r.sqes, p)
	r.cq = newCompletions(r.rings, p)
	return nil
}

func mmapRing(fd int, off int64, n uintptr) (unsafe.Pointer, error) {
	return unix.MmapPtr(fd, off, nil, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// probeOps asks which operations the kernel knows.
func (r *Ring) probeOps() error {
	var p probe
	if errno := r.register(registerProbe, unsafe.Pointer(&p), probeOps); errno != 0 {
		return fmt.Errorf("uring: probe operations: %w", errno)
	}
	for _, o := range p.ops[:p.opsLen] {
		r.probed[o.op] = o.flags&probeOpSupported != 0
	}
	return nil
}

// Supports reports whether the kernel knows op (IORING_REGISTER_PROBE).
func (r *Ring) Supports(op Op) bool { return r.probed[op] }

// Enable makes the calling thread the owner of the ring and lets it submit. The goroutine is locked to it.
func (r *Ring) Enable() error {
	if errno := r.register(registerEnableRings, nil, 0); errno != 0 {
		return fmt.Errorf("uring: enable ring: %w", errno)
	}
	if check.Enabled {
		r.tid = unix.Gettid()
	}
	return nil
}

// Entries returns the places of the submission and of the completion queue.
func (r *Ring) Entries() (sq, cq uint32) { return r.setup.sqEntries, r.setup.cqEntries }

// Close ends the ring. The owner first cancels what is in flight and reaps it: the kernel may
// write to the buffers of requests that were not reaped even after Close has returned.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return os.ErrClosed
	}
	err := unix.Close(r.fd)
	r.fd = -1
	r.sq, r.cq = submissions{}, completions{}
	unmapRing(r.rings, r.ringsLen)
	unmapRing(r.sqes, r.sqesLen)
	unmapRing(unsafe.Pointer(r.args), waitArgsLen)
	if err != nil {
		return fmt.Errorf("uring: close ring: %w", err)
	}
	return nil
}

// unmapRing gives up a mapping, if there is one.
func unmapRing(addr unsafe.Pointer, n uintptr) {
	if addr == nil {
		return
	}
	err := unix.MunmapPtr(addr, n)
	check.Invariant(err == nil, "uring: unmap %d bytes at %p: %v", n, addr, err)
}

func (r *Ring) register(cmd uintptr, arg unsafe.Pointer, n uintptr) unix.Errno {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), cmd, uintptr(arg), n, 0, 0)
		if errno != unix.EINTR {
			return errno
		}
	}
}
