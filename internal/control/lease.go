package control

import (
	"context"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

const (
	// leaseMaxSeconds bounds one lease; it can be renewed. Guests give up on a disk that is silent for longer than minutes.
	leaseMaxSeconds = 3600
	// leasesMax bounds the sections that are held at once: each is somebody's half-forgotten intention.
	leasesMax = 64
)

// lease is a drained section that an operator holds, or is going to.
type lease struct {
	// Immutable.
	id     string
	begun  time.Time
	giveUp context.CancelFunc // ends the wait for what is in flight

	// Guarded by Plane.mu.
	section *blockcore.Drained // nil = still waits
	timer   *time.Timer        // nil = still waits
	expires time.Time
	ended   bool
	forget  func() // has the connection not end it any more
}

type drainArgs struct {
	Exports []string `qmp:"exports,optional"`
	Nodes   []string `qmp:"nodes,optional"`
	Lease   int64    `qmp:"lease"`
	Timeout *int64   `qmp:"timeout"`
	Flush   *bool    `qmp:"flush"`
}

// drainBegin holds exports still, all at one instant, until the lease is ended, is over, or the monitor that asked for it is
// gone. What was acknowledged is flushed, unless flush is false, so that a snapshot of the storage taken meanwhile has it. With a timeout it
// gives up sooner, or later, than changes do when requests in flight do not end.
func (p *Plane) drainBegin(ctx context.Context, call *qmp.Call, a *drainArgs) (any, error) {
	if err := checkSeconds("lease", a.Lease); err != nil {
		return nil, err
	}
	if a.Timeout != nil {
		if err := checkSeconds("timeout", *a.Timeout); err != nil {
			return nil, err
		}
	}
	nodes, roots, err := p.drained(a)
	if err != nil {
		return nil, err
	}
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	l := &lease{id: p.nextID("drain"), begun: time.Now(), giveUp: giveUp}
	if err := p.enter(l); err != nil {
		return nil, err
	}
	o := p.drainOptions("lease "+l.id, nodes...)
	o.ID, o.Roots = l.id, roots
	if a.Timeout != nil {
		o.Max = time.Duration(*a.Timeout) * time.Second
	}
	o.FlushAhead = a.Flush == nil || *a.Flush
	section, err := p.still(ctx, o)
	switch {
	case err != nil && p.leave(l):
		return nil, err
	case err != nil:
		return nil, endedEarly(l) // by x-drain-end, not because somebody does not answer
	case !p.keep(l, section, a.Lease):
		section.End()
		return nil, endedEarly(l)
	}
	p.tie(l, call.Connection)
	return map[string]string{"id": l.id}, nil
}

func endedEarly(l *lease) error {
	return qmp.Errorf("The drained section '%s' was ended before it began", l.id)
}

// still begins a section, and flushes in it what it covers if it was to be flushed ahead.
func (p *Plane) still(ctx context.Context, o blockcore.DrainOptions) (*blockcore.Drained, error) {
	section, err := p.graph.Drain(ctx, o)
	if err != nil || !o.FlushAhead {
		return section, err
	}
	if err := p.graph.Flush(ctx, "flush for "+o.Why, o.Nodes...); err != nil {
		section.End()
		return nil, err
	}
	return section, nil
}

func checkSeconds(name string, seconds int64) error {
	if seconds < 1 || seconds > leaseMaxSeconds {
		return qmp.Expects(name, "a number of seconds from 1 to 3600")
	}
	return nil
}

// drained lists what a lease covers: the nodes, so that nobody else writes to them either, and the exports, which stay still even
// when they are given another node meanwhile.
func (p *Plane) drained(a *drainArgs) (nodes []*blockcore.Node, roots []*blockcore.Root, err error) {
	if len(a.Exports)+len(a.Nodes) == 0 {
		return nil, nil, qmp.Missing("exports")
	}
	add := func(n *blockcore.Node) {
		if !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	for _, id := range a.Exports {
		e, err := p.export(id)
		if err != nil {
			return nil, nil, err
		}
		add(e.nbd.Node())
		if !slices.Contains(roots, e.nbd.Root()) {
			roots = append(roots, e.nbd.Root())
		}
	}
	for _, name := range a.Nodes {
		n, err := p.node(name)
		if err != nil {
			return nil, nil, err
		}
		add(n)
	}
	return nodes, roots, nil
}

// enter lists a lease that is going to be.
func (p *Plane) enter(l *lease) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.leases) >= leasesMax {
		return qmp.Errorf("%d drained sections are held already; end one with x-drain-end", leasesMax)
	}
	p.leases[l.id] = l
	return nil
}

// leave takes a lease off the list that did not come to be. It reports false when that has been ended meanwhile.
func (p *Plane) leave(l *lease) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drop(l)
}

// keep starts the time of a lease. It reports false when that has been ended meanwhile.
func (p *Plane) keep(l *lease, section *blockcore.Drained, seconds int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.ended {
		return false
	}
	d := time.Duration(seconds) * time.Second
	l.section = section
	l.expires = time.Now().Add(d)
	l.timer = time.AfterFunc(d, func() { p.expire(l) })
	return true
}

// tie has a lease end with the monitor that asked for it.
func (p *Plane) tie(l *lease, c *qmp.Connection) {
	forget := c.OnClose(func() { p.endLease(l, "monitor closed") })
	p.mu.Lock()
	l.forget = forget
	ended := l.ended
	p.mu.Unlock()
	if ended {
		forget()
	}
}

// expire ends a lease whose time is over. It may have been renewed in the moment before this is called.
func (p *Plane) expire(l *lease) {
	p.mu.Lock()
	first := !time.Now().Before(l.expires) && p.drop(l)
	p.mu.Unlock()
	if first {
		p.resume(l, "lease expired")
	}
}

// endLease ends a section, once, and tells why.
func (p *Plane) endLease(l *lease, reason string) {
	p.mu.Lock()
	first := p.drop(l)
	p.mu.Unlock()
	if first {
		p.resume(l, reason)
	}
}

// drop takes a lease off the list. It reports false when somebody else has. It expects p.mu to be held.
func (p *Plane) drop(l *lease) bool {
	first := !l.ended
	l.ended = true
	delete(p.leases, l.id)
	l.giveUp()
	if l.timer != nil {
		l.timer.Stop()
	}
	return first
}

// resume is the end of a lease that was dropped.
func (p *Plane) resume(l *lease, reason string) {
	p.mu.Lock()
	forget, section := l.forget, l.section
	p.mu.Unlock()
	if forget != nil {
		forget()
	}
	if section == nil {
		return // who asked for it is told
	}
	section.End()
	p.monitor.Broadcast("X_DRAIN_ENDED", map[string]any{"id": l.id, "reason": reason, "held-ms": time.Since(l.begun).Milliseconds()})
}

func (p *Plane) leasesNow() []*lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*lease
	for _, l := range p.leases {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lease) int { return a.begun.Compare(b.begun) })
	return all
}

func (p *Plane) lease(id string) (*lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.leases[id]; l != nil {
		return l, nil
	}
	return nil, qmp.Errorf("There is no drained section '%s'; it may have ended by itself", id)
}

type renewArgs struct {
	ID    string `qmp:"id"`
	Lease int64  `qmp:"lease"`
}

// drainRenew gives a lease new time from now on.
func (p *Plane) drainRenew(_ context.Context, _ *qmp.Call, a *renewArgs) (any, error) {
	if err := checkSeconds("lease", a.Lease); err != nil {
		return nil, err
	}
	l, err := p.lease(a.ID)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case l.ended:
		return nil, qmp.Errorf("There is no drained section '%s'; it may have ended by itself", a.ID)
	case l.section == nil:
		return nil, qmp.Errorf("The drained section '%s' has not begun: its lease starts when it does", a.ID)
	}
	d := time.Duration(a.Lease) * time.Second
	l.expires = time.Now().Add(d)
	l.timer.Reset(d)
	return nil, nil
}

// resumeMax is how long the answer to x-drain-end waits for loops to go on.
const resumeMax = time.Second

// drainEnd ends a section, or the wait for one. When it answers, clients go on, unless a loop does not.
func (p *Plane) drainEnd(ctx context.Context, _ *qmp.Call, a *idArgs) (any, error) {
	l, err := p.lease(a.ID)
	if err != nil {
		return nil, err
	}
	p.endLease(l, "ended")
	p.mu.Lock()
	section := l.section
	p.mu.Unlock()
	if section == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resumeMax)
	defer cancel()
	select {
	case <-section.Over():
	case <-ctx.Done():
	}
	return nil, nil
}
