package blockcore

import "sync"

// workerPool runs what may block on goroutines of its own, at most max at once; the
// rest waits in the order of its coming. Goroutines are started on demand, or ahead of it as many as min, and live until close or
// until there are more than max.
//
// Analogous to QEMU's ThreadPool.
type workerPool struct {
	// Guarded by mu.
	mu      sync.Mutex
	max     int
	wakeup  *sync.Cond // signalled when jobs grows, max shrinks or closed is set
	jobs    []func()
	idle    int // goroutines that wait
	started int
	closed  bool
}

func newWorkerPool() *workerPool {
	p := &workerPool{}
	p.wakeup = sync.NewCond(&p.mu)
	return p
}

// resize takes other bounds. Jobs that wait get the workers that may come now; workers that are too many end after the job they have, so
// that lowering the bound waits for nobody. Safe from anywhere.
func (p *workerPool) resize(least, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.max = most
	wanted := max(least, p.started-p.idle+len(p.jobs))
	for p.started < min(wanted, p.max) {
		p.start()
	}
	p.wakeup.Broadcast()
}

// start starts a worker. mu is held.
func (p *workerPool) start() {
	p.started++
	go p.workLoop()
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
		p.start()
	}
}

// workLoop does one job after the other until the pool is closed and empty, or smaller.
func (p *workerPool) workLoop() {
	for {
		job := p.take()
		if job == nil {
			return
		}
		job()
	}
}

// take waits for a job; nil = there will be none, or it is for others.
func (p *workerPool) take() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.started > p.max || len(p.jobs) == 0 {
		if p.closed || p.started > p.max {
			p.started--
			p.wakeup.Signal() // what this one was woken for is for another
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
