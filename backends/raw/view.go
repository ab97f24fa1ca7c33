package raw

import (
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

const (
	// viewBytes is how much of the file one view maps: enough for a mapping to be used for long, little enough
	// for the hot parts of a large disk to be told from the others.
	viewBytes = 32 << 20
	// faultRest is how long a view is left alone after a copy has faulted: each fault costs a signal, and whatever is
	// wrong (no space, a file cut off, a bad block) seldom passes at once.
	faultRest = time.Second
)

// view is a part of the file that is mapped, shared, so that loads and stores there are loads and stores of the page
// cache. Its memory is never handed out: whoever touches it does so in copy.
type view struct {
	// Immutable.
	start  int64  // in the file
	memory []byte // off the Go heap; a multiple of the page size
	budget *mapBudget

	// Owned by the context.
	used      bool          // since somebody looked last
	restUntil time.Duration // after a fault
	regions   [viewBytes / regionBytes]region
}

// openView maps the file from start on, or returns nil: then there is none, which is no error.
func openView(fd int, start, length int64, writable bool, budget *mapBudget) *view {
	if !budget.take(length) {
		return nil
	}
	protection := unix.PROT_READ
	if writable {
		protection |= unix.PROT_WRITE
	}
	at, err := unix.MmapPtr(fd, start, nil, uintptr(length), protection, unix.MAP_SHARED)
	if err != nil {
		budget.put(length)
		return nil
	}
	return &view{start: start, memory: unsafe.Slice((*byte)(at), length), budget: budget}
}

// close unmaps the view. It takes up to a millisecond, so a worker does it.
func (w *view) close() {
	_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(w.memory)), uintptr(len(w.memory)))
	w.budget.put(int64(len(w.memory)))
}

// store puts p at pos of the file, load fills p from there. They report false when the memory was not there
// to be touched: then a part may have been copied, and the ordinary way has to do all of it, and learns why.
func (w *view) store(p []byte, pos int64) bool { return w.copy(w.memory[pos-w.start:], p) }

func (w *view) load(p []byte, pos int64) bool { return w.copy(p, w.memory[pos-w.start:]) }

// copy is the one place where mapped memory is touched. The kernel raises SIGBUS if the page cannot be had: the file ends
// before it, there is no space for what was a hole, the disk fails. See mmap(2). The runtime makes a panic of it
// while it is asked to, which it is for this goroutine and this copy only.
func (w *view) copy(dst, src []byte) (ok bool) {
	defer w.catch(debug.SetPanicOnFault(true))
	copy(dst, src)
	return true
}

// catch ends the panic of a fault in the memory of w; any other goes on.
func (w *view) catch(old bool) {
	debug.SetPanicOnFault(old)
	if r := recover(); r != nil && !w.faulted(r) {
		panic(r)
	}
}

// faulted reports whether r is the panic of a fault at an address of w.
func (w *view) faulted(r any) bool {
	if _, ok := r.(runtime.Error); !ok {
		return false
	}
	fault, ok := r.(interface{ Addr() uintptr })
	if !ok {
		return false
	}
	first := uintptr(unsafe.Pointer(unsafe.SliceData(w.memory)))
	return fault.Addr() >= first && fault.Addr()-first < uintptr(len(w.memory))
}

// end is where the view ends in the file.
func (w *view) end() int64 { return w.start + int64(len(w.memory)) }

// overlap is the part of r, in offsets of the file, that w has; its length may be negative.
func (w *view) overlap(r blockcore.Range) blockcore.Range {
	from := max(r.Offset, w.start)
	return blockcore.Range{Offset: from, Length: min(r.End(), w.end()) - from}
}
