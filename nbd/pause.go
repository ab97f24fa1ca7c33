package nbd

import (
	"context"
	"fmt"
	"time"

	"nbd-dataplane/blockcore"
)

// pause is the time between an export that has gone and another one of its name, in which the clients of the one wait for the other:
//
//	RemoveExport   hidden -> park: drained, flushed, connections still, on the main loop, node free -> ready
//	pauseLoop      until the limit, the last client, the stop of the server, or
//	AddExport      enlist claims -> the clients leave the old export's loop and come to the new one's (takeover.go)
//
// The export that has gone stays as the owner of its connections until then, without a Root: they keep their sockets, what was received and what
// is still to be sent, replies go on to leave, and who is gone is found. Nothing is read.
type pause struct {
	// Immutable.
	export  *Export
	most    time.Duration
	begun   time.Time
	claimed chan struct{} // closed when another export takes the clients
	handed  chan struct{} // closed when it has them

	// Guarded by Server.mu.
	ready bool // the clients can be taken
	taken int  // so many were
}

func newPause(e *Export, most time.Duration) *pause {
	return &pause{export: e, most: most, begun: time.Now(), claimed: make(chan struct{}), handed: make(chan struct{})}
}

// pause holds the clients of e, which is hidden, for the next export of its name. It reports false when they are to leave at once: there are
// none, or they could not be brought to rest.
func (s *Server) pause(ctx context.Context, e *Export, most time.Duration) bool {
	p := s.pauseOf(e.Name())
	if p == nil || p.export != e {
		return false
	}
	err := e.park(ctx, most)
	s.mu.Lock()
	if err == nil && s.stopping {
		err = errStopping
	}
	if err != nil {
		delete(s.pauses, e.Name())
		s.mu.Unlock()
		s.emit(PauseRefused{Export: e.Name(), Err: err})
		return false
	}
	p.ready = true
	s.pausing.Add(1)
	s.mu.Unlock()
	s.emit(ClientsHeld{Export: e.Name(), Clients: e.Clients(), Most: most})
	go s.pauseLoop(p)
	return true
}

func (s *Server) pauseOf(name string) *pause {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pauses[name]
}

// park brings the connections of e to rest and gives up its node. What clients have had acknowledged is flushed first: a FLUSH that they send
// to the next export does not reach what this one has written.
func (e *Export) park(ctx context.Context, most time.Duration) error {
	why := "pause of export " + e.Name()
	d, err := e.graph.Drain(ctx, blockcore.DrainOptions{Why: why, Roots: []*blockcore.Root{e.root}, Max: min(most, blockcore.DrainMaxDefault)})
	if err != nil {
		return err
	}
	defer d.End()
	return e.graph.Update(ctx, why, func(tx *blockcore.Tx) error {
		if e.options.Writable {
			if err := tx.Flush(e.root.Node()); err != nil {
				return err
			}
		}
		if err := e.ctx.Load().Do(func(*blockcore.Task) error { return e.stopReading() }); err != nil {
			return err
		}
		if err := e.goHome(); err != nil {
			return err
		}
		tx.CloseRoot(e.root)
		e.rootless.Store(true)
		e.leaveBitmaps()
		return nil
	})
}

// stopReading has the connections read nothing any more. On the loop, in a section.
func (e *Export) stopReading() error {
	for _, c := range e.connections() {
		if c.inFlight > 0 {
			return fmt.Errorf("%v has %d requests in flight", c, c.inFlight)
		}
	}
	e.parked = true
	for _, c := range e.connections() {
		if c.watcher != nil && !c.ended {
			c.blocked = true
			c.watcher.Cool()
		}
	}
	return nil
}

// goHome brings e to the main loop, if there is one: an iothread that is not used any more may be closed. In an Update, so that e does not move otherwise.
func (e *Export) goHome() error {
	from, home := e.ctx.Load(), e.graph.Main()
	if home == nil || home == from {
		return nil
	}
	if err := home.Do(func(*blockcore.Task) error { return nil }); err != nil {
		return fmt.Errorf("entering AioContext %s: %w", home.Name(), err)
	}
	if err := from.Do(func(*blockcore.Task) error { e.Detach(home); return nil }); err != nil {
		return fmt.Errorf("leaving AioContext %s: %w", from.Name(), err)
	}
	return home.Do(func(*blockcore.Task) error { e.Attach(home); return nil })
}

// pauseLoop waits for the end of a pause, and ends what is left of the export.
func (s *Server) pauseLoop(p *pause) {
	defer s.pausing.Done()
	e := p.export
	outcome, clients := s.awaitPause(p), 0
	if s.endPause(p) {
		clients = e.Clients()
		for _, c := range e.connections() {
			e.post(c.stop)
		}
		<-e.deserted // nothing is in flight, so Limits.Linger and Limits.Farewell bound it
	} else {
		<-p.handed
		outcome, clients = OutcomeTakenOver, p.taken
	}
	e.letGo()
	s.departed(e)
	s.emit(ClientsReleased{Export: e.Name(), Clients: clients, Held: time.Since(p.begun), Outcome: outcome})
}

func (s *Server) awaitPause(p *pause) Outcome {
	limit := time.NewTimer(p.most - time.Since(p.begun))
	defer limit.Stop()
	select {
	case <-p.claimed:
		return OutcomeTakenOver
	case <-p.export.deserted:
		if s.stopped() { // which is why they have left
			return OutcomeStopped
		}
		return OutcomeLeft
	case <-limit.C:
		return OutcomeLimit
	case <-s.quit:
		return OutcomeStopped
	}
}

// endPause reports whether nobody has taken the clients; nobody will from now on.
func (s *Server) endPause(p *pause) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pauses[p.export.Name()] != p {
		return false
	}
	delete(s.pauses, p.export.Name())
	return true
}
