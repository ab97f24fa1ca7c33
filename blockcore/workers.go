package blockcore

import "sync"

// workerPool runs what may block on goroutines of its own, at most max at once; the
// rest waits in the order of its coming. Goroutines are started on demand and live until close.
//
// Analogous to QEMU's ThreadPool.
type workerPool struct {
	// Immutable.
	max int

	// Guarded by mu.
	mu      sync.Mutex
	wakeup  *sync.Cond // signalled when jobs grows or closed is set
	jobs    []func()
	idle    int // goroutines that wait
	started int
	closed  bool
}

func newWorkerPool(limit int) *workerPool {
	p := &workerPool{max: limit}
	p.wakeup = sync.NewCond(&p.mu)
	return p
}

// run has job run on a worker. Safe from anywhere.
func (p *workerPool) run(job func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, job)
	switch {
	case p.idle >= len(p.jobs):
		p.wakeup.Signal()
	case p.started < p.max:
		p.started++
		go p.workLoop()
	}
}

// workLoop does one job after the other until the pool is closed and empty.
func (p *workerPool) workLoop() {
	for {
		job := p.take()
		if job == nil {
			return
		}
		job()
	}
}

// take waits for a job; nil = there will be none.
func (p *workerPool) take() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.jobs) == 0 {
		if p.closed {
			return nil
		}
		p.idle++
		p.wakeup.Wait()
		p.idle--
	}
	job := p.jobs[0]
	p.jobs[0] = nil
	p.jobs = p.jobs[1:]
	return job
}

// close lets the workers end once all jobs are done. Nothing is run afterwards.
func (p *workerPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.wakeup.Broadcast()
}
