package nbd

import (
	"context"
	"errors"
	"fmt"

	"nbd-dataplane/blockcore"
)

// errPaused: clients wait for an export of that name.
var errPaused = errors.New("clients wait for it")

// publish makes e visible to clients. Those that wait for an export of its name are its own from that moment on.
func (s *Server) publish(e *Export) error {
	if _, err := s.enlist(e, false); !errors.Is(err, errPaused) {
		return err
	}
	// In the control plane no export moves to another loop.
	return e.graph.Update(context.Background(), "clients for export "+e.Name(), func(*blockcore.Tx) error { return s.takeOver(e) })
}

// enlist is the moment from which clients find e. It returns the pause that this ends, nil if there is none, and errPaused if there is one and
// takes is false.
func (s *Server) enlist(e *Export, takes bool) (*pause, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, errStopping
	}
	p := s.pauses[e.Name()]
	switch {
	case p == nil:
	case !p.ready:
		return nil, fmt.Errorf("export %s is being removed; wait until it is gone", shown(e.Name()))
	case !takes:
		return nil, errPaused
	default:
		delete(s.pauses, e.Name())
		p.taken = p.export.giveTo(e)
		close(p.claimed)
	}
	s.exports = append(s.exports, e)
	return p, nil
}

// giveTo makes the connections of e those of another export, and returns their number. Their loops do not know yet.
func (e *Export) giveTo(next *Export) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	next.mu.Lock()
	defer next.mu.Unlock()
	next.conns, e.conns = e.conns, map[*Conn]struct{}{}
	e.checkDeserted()
	return len(next.conns)
}

// takeOver is publish for an export that others wait for. Three steps on two loops: the connections leave the one and come to the other, and
// what is posted to them in between waits for them there.
func (s *Server) takeOver(next *Export) error {
	before := s.pauseOf(next.Name())
	if before != nil {
		if err := before.export.onLoop(func() {}); err != nil {
			return err // nobody can come back from there
		}
	}
	if err := next.onLoop(next.setOff); err != nil {
		return err
	}
	p, err := s.enlist(next, true)
	// Both loops have just answered, and who closes one takes what is on it off before.
	if p == nil {
		_ = next.onLoop(func() { next.adopt(nil) })
		return err
	}
	conns := next.connections()
	_ = p.export.onLoop(func() { p.export.release(conns) })
	_ = next.onLoop(func() { next.adopt(conns) })
	_ = p.export.onLoop(func() { p.export.bequeath(next) })
	close(p.handed)
	return nil
}

// onLoop runs fn where e is, which does not move meanwhile, and waits for it.
func (e *Export) onLoop(fn func()) error {
	ctx := e.ctx.Load()
	if err := ctx.Do(func(*blockcore.Task) error { fn(); return nil }); err != nil {
		return fmt.Errorf("export %s: AioContext %s: %w", shown(e.Name()), ctx.Name(), err)
	}
	return nil
}

// release takes the connections off the loop of e, which has parked them. On that loop.
func (e *Export) release(conns []*Conn) {
	e.lookNoMore()
	e.setOff()
	for _, c := range conns {
		if c.watcher != nil && !c.closed {
			c.leaveLoop(nil)
		}
	}
}

// adopt takes connections up that another export has released. Those that have not begun come by what is posted. On the loop of e.
func (e *Export) adopt(conns []*Conn) {
	ctx := e.ctx.Load()
	for _, c := range conns {
		if c.closed { // before it was released
			e.remove(c)
			continue
		}
		c.changeExport(e)
		if c.between {
			c.blocked = c.blocked && e.still
			c.enterLoop(ctx)
		}
		if err := e.unfit(c); err != nil && !c.ended {
			c.endInput(CauseStopped, err)
			c.stop()
		}
	}
	e.land()
}

// changeExport makes c, which is on no loop, a client of e, with what it has reserved.
func (c *Conn) changeExport(e *Export) {
	c.export.budget.give(c.reserved)
	e.budget.carry(c.reserved)
	c.export, c.lane = e, e.lane
}

// unfit says why c cannot go on with e: it came in for less than it takes now, or it uses what e does not offer. A smaller size is no
// reason, as with a resize; nor is the minimum block, as c is held to the one that it knows.
func (e *Export) unfit(c *Conn) error {
	if e.options.TLSOnly && !c.peer.TLS {
		return errors.New("the export that took over needs TLS")
	}
	if err := e.allows(c.peer); err != nil {
		return err
	}
	return offer{flags: c.agreed.flags &^ FlagSendDF}.allowsFlags(e.offer())
}

// bequeath has what is posted to e go to the export that has its connections. On the loop of e.
func (e *Export) bequeath(next *Export) {
	e.heir.Store(next)
	e.land()
}
