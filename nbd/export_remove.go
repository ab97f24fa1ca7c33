package nbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"nbd-dataplane/blockcore"
)

// ErrInUse: the export has clients and was to be removed only without.
type ErrInUse struct{ Export string }

func (e *ErrInUse) Error() string { return fmt.Sprintf("export '%s' still in use", e.Export) }

// RemoveExport takes an export away: no new clients from now on, and those that there are leave by farewell. It returns when the
// last one is gone, or waits for another export, and the node below is free. When ctx ends first, connections are cut.
func (s *Server) RemoveExport(ctx context.Context, e *Export, farewell Farewell) error {
	if err := s.HideExport(e, farewell); err != nil {
		return err
	}
	return s.EndExport(ctx, e, farewell)
}

// EndExport is the part of RemoveExport that takes its time, after HideExport.
func (s *Server) EndExport(ctx context.Context, e *Export, farewell Farewell) error {
	switch farewell.kind {
	case retires:
		e.retire(ctx, s.limits.Retire)
	case pauses:
		if s.pause(ctx, e, farewell.most) {
			s.emit(ExportRemoved{Export: e.Name()})
			return nil
		}
	}
	e.stopAll()
	drained := make(chan struct{})
	go e.lastDrain(drained)
	var err error
	select {
	case <-e.deserted:
	case <-ctx.Done():
		err = fmt.Errorf("export %s: clients were cut off: %w", shown(e.Name()), ctx.Err())
		e.evictAll()
		<-e.deserted // a write may still land: the node is in use until then
	}
	<-drained
	e.letGo()
	s.departed(e)
	s.emit(ExportRemoved{Export: e.Name()})
	return err
}

// HideExport lets no client to e any more, and is followed by EndExport. What clients have asked and what has not begun is not executed from here on, unless it is
// a pause, even if a section ends that has held it back. With FarewellNone it refuses instead where there are clients: one that
// connects at that time is either among them, or meets no export. It does not wait. Safe from anywhere.
func (s *Server) HideExport(e *Export, farewell Farewell) error {
	if err := s.hide(e, farewell); err != nil {
		return err
	}
	switch farewell.kind {
	case restarts:
		e.stopAll()
	case retires:
		e.answerShutdown()
	case cuts:
		e.evictAll()
	}
	return nil
}

func (s *Server) hide(e *Export, farewell Farewell) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.Index(s.exports, e)
	if at < 0 {
		return fmt.Errorf("Export '%s' is already shutting down", e.Name())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if farewell == FarewellNone && len(e.conns)+e.expected > 0 {
		return &ErrInUse{e.Name()}
	}
	e.gone = true
	e.checkDeserted()
	s.exports = slices.Delete(s.exports, at, at+1)
	s.departing = append(s.departing, e)
	if farewell.kind == pauses && len(e.conns) > 0 {
		s.pauses[e.Name()] = newPause(e, farewell.most)
	}
	return nil
}

// departed forgets an export that is gone.
func (s *Server) departed(e *Export) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.departing = slices.DeleteFunc(s.departing, func(other *Export) bool { return other == e })
}

// letGo gives up what the export holds: its node, and its part of a lane. Its last client is gone.
func (e *Export) letGo() {
	e.once.Do(func() {
		if !e.rootless.Load() {
			e.root.Close() // nobody moves e from here on
		}
		e.leaveBitmaps()
		if e.server.leaveLane(e.lane) {
			// A context that is closed has no use for the memory.
			_ = e.lane.ctx.Do(func(*blockcore.Task) error { e.lane.release(); return nil })
		}
	})
}

// retire answers everything with ESHUTDOWN until all clients have left or the time is over.
func (e *Export) retire(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	e.answerShutdown()
	select {
	case <-e.deserted:
	case <-e.server.quit:
	case <-ctx.Done():
	}
}

// answerShutdown has everything answered with ESHUTDOWN that has not begun.
func (e *Export) answerShutdown() {
	e.post(func() {
		e.retired = true
		for _, c := range e.connections() {
			c.roomAgain() // a section is no reason to wait
		}
	})
}

// stopAll ends the input of all connections, which end after what is in flight.
func (e *Export) stopAll() {
	for _, c := range e.connections() {
		e.post(c.stop)
	}
}

// evictAll cuts all clients off.
func (e *Export) evictAll() {
	for _, c := range e.connections() {
		c.evict(e, CauseStopped)
	}
}

// retireExports removes the exports whose clients are to meet that at the end of the server. The others go on meanwhile.
func (s *Server) retireExports(ctx context.Context) error {
	var retiring []*Export
	for _, e := range s.snapshot() {
		if e.Farewell() == FarewellRetire {
			retiring = append(retiring, e)
		}
	}
	errs := make([]error, len(retiring))
	var wg sync.WaitGroup
	for i, e := range retiring {
		wg.Go(func() { errs[i] = s.RemoveExport(ctx, e, FarewellRetire) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// lastDrain is for when the input of all connections has ended: what is in flight waits for no limits of throttling any more, and when it
// takes too long the drain says whom it waits for. It closes done at its end.
func (e *Export) lastDrain(done chan<- struct{}) {
	defer close(done)
	if e.Clients() == 0 {
		return
	}
	d, err := e.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "the end of export " + e.Name(), Roots: []*blockcore.Root{e.root}})
	if err != nil {
		return // the event of the drain tells, and those who wait for the connections do so still
	}
	d.End()
}

// Clients returns the number of connections to e. Safe from anywhere.
func (e *Export) Clients() int { return len(e.connections()) }

// Farewell returns what clients are to meet when the export goes and nobody says otherwise. Safe from anywhere.
func (e *Export) Farewell() Farewell { return e.options.Farewell }

// Writable tells whether clients may write. Safe from anywhere.
func (e *Export) Writable() bool { return e.options.Writable }

// Node returns the node that is exported now; it follows changes of the graph. Safe from anywhere.
func (e *Export) Node() *blockcore.Node { return e.root.Node() }

// Root returns the export's handle on the graph. Safe from anywhere.
func (e *Export) Root() *blockcore.Root { return e.root }

// Exports returns the exports, in the order of their coming. Safe from anywhere.
func (s *Server) Exports() []*Export { return s.snapshot() }
