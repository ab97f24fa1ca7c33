package blockcore

import (
	"errors"
	"fmt"
	"time"
)

// EngineKind names one of the ways in which an AioContext does its I/O.
type EngineKind uint8

const (
	// EngineAuto is EngineURing where the kernel allows it, else EngineThreads.
	EngineAuto EngineKind = iota
	// EngineURing is one io_uring a context.
	EngineURing
	// EngineThreads is epoll for readiness and a pool of workers for I/O.
	EngineThreads
)

func (k EngineKind) String() string {
	switch k {
	case EngineAuto:
		return "auto"
	case EngineURing:
		return "io_uring"
	case EngineThreads:
		return "threads"
	}
	return fmt.Sprintf("EngineKind(%d)", uint8(k))
}

// open makes the engine of c.
func (k EngineKind) open(c *AioContext) (engine, error) {
	switch k {
	case EngineURing:
		return newURingEngine(c)
	case EngineThreads:
		return newThreadsEngine(c)
	}
	e, errRing := newURingEngine(c)
	if errRing == nil {
		return e, nil
	}
	t, errThreads := newThreadsEngine(c)
	if errThreads != nil {
		return nil, errors.Join(errRing, errThreads)
	}
	return t, nil
}

// engine does the waiting and the I/O of one AioContext. All methods but wake are called on the
// loop's thread, or, before start and after the loop has ended, by whoever owns the context then.
type engine interface {
	name() string
	// start takes possession of the loop's thread. When it fails, close follows.
	start() error
	// queue takes an operation; its Task is resumed by a later reap.
	queue(o *operation)
	// queued returns how many operations wait for submit.
	queued() int
	// submit starts everything that is queued, without waiting.
	submit()
	// reap delivers what is complete and reports whether there was anything.
	reap() bool
	// pollReady looks, cheaply and without a system call, whether submit and reap may find something.
	pollReady() bool
	// wait submits what is queued and sleeps until something can be reaped, wake is called or timeout
	// has passed (negative: no limit). It may return early for no reason. A patient wait is one that
	// may last: it tells the Go scheduler, which costs more at its end but nothing while it lasts.
	wait(timeout time.Duration, patient bool)
	// wake ends the wait that is in progress or the next one. Safe from anywhere.
	wake()
	// arm has w.handler.Ready called once, from a reap, when w.fd is ready in direction d.
	arm(w *Watcher, d direction)
	// disarm takes back what is armed for w, which is about to be closed; the engine calls w.release
	// when the kernel knows nothing of it any more.
	disarm(w *Watcher)
	// close gives everything back. No operation is in progress.
	close()
}
