package blockcore

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onLoopOf runs fn as a Task and reports what it says.
func onLoopOf(b *testing.B, kind EngineKind, fn func(*Task) error) {
	c := newTestContext(b, ContextOptions{Engine: kind})
	do(b, c, fn)
}

func BenchmarkYield(b *testing.B) {
	// The price of a suspension and a resumption: a Task that yields while nothing else is to be done, so with a turn of the
	// loop around it.
	onLoopOf(b, EngineURing, func(t *Task) error {
		b.ResetTimer()
		for range b.N {
			t.Yield()
		}
		return nil
	})
}

// nothing is a body that ends at once.
type nothing struct{ ended int }

func (n *nothing) Run(*Task) { n.ended++ }

func BenchmarkSpawn(b *testing.B) {
	// The price of a Task that neither suspends nor has to be made anew.
	c := newTestContext(b, ContextOptions{Engine: EngineURing})
	onLoop(b, c, func() {
		body := &nothing{}
		b.ResetTimer()
		for range b.N {
			c.Spawn(body)
		}
	})
}

func BenchmarkNewTask(b *testing.B) {
	// The price of a coroutine that is made and ended, which reuse saves.
	c := newTestContext(b, ContextOptions{Engine: EngineURing})
	onLoop(b, c, func() {
		body := &nothing{}
		b.ResetTimer()
		for range b.N {
			c.Spawn(body)
			last := len(c.idle) - 1
			t := c.idle[last]
			c.idle = c.idle[:last]
			c.tasks.remove(t.index)
			t.stop()
		}
	})
}

func BenchmarkGoroutine(b *testing.B) {
	// What a goroutine a request costs, for comparison: started, and heard of through a channel.
	done := make(chan struct{})
	for range b.N {
		go func() { done <- struct{}{} }()
		<-done
	}
}

func BenchmarkHandOff(b *testing.B) {
	// What handing a request to a goroutine that waits and hearing of its end costs, for comparison.
	ask, done := make(chan struct{}), make(chan struct{})
	go func() {
		for range ask {
			done <- struct{}{}
		}
		close(done)
	}()
	for range b.N {
		ask <- struct{}{}
		<-done
	}
	close(ask)
	<-done
}

func BenchmarkPostFromOutside(b *testing.B) {
	// The price of having something done on a loop that sleeps, and hearing of it.
	for _, kind := range engineKinds {
		b.Run(kind.String(), func(b *testing.B) {
			c := newTestContext(b, ContextOptions{Engine: kind, PollMax: -1})
			done := make(chan struct{})
			b.ResetTimer()
			for range b.N {
				c.Post(func() { done <- struct{}{} })
				<-done
			}
		})
	}
}

func BenchmarkRead4K(b *testing.B) {
	// A page-cache hit through each engine at depth 1, and by pread(2) in place.
	for _, kind := range engineKinds {
		b.Run(kind.String(), func(b *testing.B) {
			fd := tempFile(b, 1<<20)
			onLoopOf(b, kind, func(t *Task) error {
				p := t.Buffers().Get(4096)
				defer t.Buffers().Put(p)
				b.ResetTimer()
				for i := range b.N {
					if _, err := t.Pread(fd, p, int64(i%256)*4096); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	b.Run("pread", func(b *testing.B) {
		fd := tempFile(b, 1<<20)
		onLoopOf(b, EngineURing, func(t *Task) error {
			p := t.Buffers().Get(4096)
			defer t.Buffers().Put(p)
			b.ResetTimer()
			for i := range b.N {
				unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), 4096, uintptr(i%256)*4096, 0, 0)
			}
			return nil
		})
	})
}

// empty is a driver that does nothing at all.
type empty struct{}

func (empty) Size() int64                       { return 1 << 40 }
func (empty) ReadAt(*Task, []byte, int64) error { return nil }
func (empty) Close(*Task) error                 { return nil }

func (empty) WriteAt(*Task, []byte, int64, WriteFlags) error {
	return nil
}

// rootRequest is a request as an owner makes it.
type rootRequest struct {
	root   *Root
	edge   *Edge
	ticket Ticket
	write  bool
	p      []byte
	err    error
}

func (q *rootRequest) Run(t *Task) {
	q.ticket.Op, q.ticket.Range = "request", Range{0, 4096}
	q.root.Begin(t, &q.ticket)
	if q.write {
		q.err = q.edge.Write(t, q.p, 0, 0)
	} else {
		q.err = q.edge.Read(t, q.p, 0)
	}
	q.root.End(t, &q.ticket)
}

func BenchmarkRequest(b *testing.B) {
	// The price of a request in the block layer, storage apart: a Task, admission, the checks and counts of an edge.
	for name, write := range map[string]bool{"read": false, "write": true} {
		b.Run(name, func(b *testing.B) {
			c := newTestContext(b, ContextOptions{Engine: EngineURing})
			r := attach(b, c, empty{})
			onLoop(b, c, func() {
				q := &rootRequest{root: r, edge: r.Edge(), write: write, p: make([]byte, 4096)}
				b.ResetTimer()
				for range b.N {
					c.Spawn(q)
				}
				if q.err != nil {
					b.Error(q.err)
				}
			})
		})
	}
}
