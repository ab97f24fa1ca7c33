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

// lease is a drained section that an operator holds.
type lease struct {
	// Immutable.
	id      string
	exports []string
	section *blockcore.Drained
	begun   time.Time

	// Guarded by Plane.mu.
	timer   *time.Timer
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
	l := &lease{id: p.nextID("drain"), exports: append(once(a.Exports), once(a.Nodes)...), begun: time.Now()}
	o := p.drainOptions("lease "+l.id, nodes...)
	o.Roots = roots
	if a.Timeout != nil {
		o.Max = time.Duration(*a.Timeout) * time.Second
	}
	o.FlushAhead = a.Flush == nil || *a.Flush
	if l.section, err = p.graph.Drain(ctx, o); err != nil {
		return nil, err
	}
	if o.FlushAhead {
		err := p.graph.Update(ctx, "flush for lease "+l.id, func(tx *blockcore.Tx) error { return tx.Flush(nodes...) })
		if err != nil {
			l.section.End()
			return nil, err
		}
	}
	if err := p.keep(l, a.Lease); err != nil {
		l.section.End()
		return nil, err
	}
	p.tie(l, call.Connection)
	return map[string]string{"id": l.id}, nil
}

// once is a list without what is in it again: what is named twice is held once, as is an export that is named beside its node.
func once(names []string) []string {
	var list []string
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
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

// keep enters a lease and starts its time.
func (p *Plane) keep(l *lease, seconds int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.leases) >= leasesMax {
		return qmp.Errorf("%d drained sections are held already; end one with x-drain-end", leasesMax)
	}
	d := time.Duration(seconds) * time.Second
	p.leases[l.id] = l
	l.expires = time.Now().Add(d)
	l.timer = time.AfterFunc(d, func() { p.expire(l) })
	return nil
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
	l.timer.Stop()
	return first
}

// resume is the end of a lease that was dropped.
func (p *Plane) resume(l *lease, reason string) {
	p.mu.Lock()
	forget := l.forget
	p.mu.Unlock()
	if forget != nil {
		forget()
	}
	l.section.End()
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
	if l.ended {
		return nil, qmp.Errorf("There is no drained section '%s'; it may have ended by itself", a.ID)
	}
	d := time.Duration(a.Lease) * time.Second
	l.expires = time.Now().Add(d)
	l.timer.Reset(d)
	return nil, nil
}

func (p *Plane) drainEnd(_ context.Context, _ *qmp.Call, a *idArgs) (any, error) {
	l, err := p.lease(a.ID)
	if err != nil {
		return nil, err
	}
	p.endLease(l, "ended")
	return nil, nil
}

// queryDrains lists all drained sections: those that operators hold, and those of changes under way.
func (p *Plane) queryDrains(context.Context, *qmp.Call) (any, error) {
	type info struct {
		ID       string   `json:"id,omitempty"`
		Why      string   `json:"why"`
		Exports  []string `json:"exports,omitempty"`
		HeldMS   int64    `json:"held-ms"`
		LeaseMS  int64    `json:"lease-ms,omitempty"`
		SettleUS int64    `json:"settle-us"`
		Settled  bool     `json:"settled"`
	}
	byID := map[*blockcore.Drained]*lease{}
	for _, l := range p.leasesNow() {
		byID[l.section] = l
	}
	list := []info{}
	for _, d := range p.graph.Sections() {
		i := info{Why: d.Why(), HeldMS: time.Since(d.Begun()).Milliseconds(), SettleUS: d.Timings().Settle.Microseconds(), Settled: d.Settled()}
		if l := byID[d]; l != nil {
			i.ID, i.Exports = l.id, l.exports
			p.mu.Lock()
			i.LeaseMS = time.Until(l.expires).Milliseconds()
			p.mu.Unlock()
		}
		list = append(list, i)
	}
	return list, nil
}
