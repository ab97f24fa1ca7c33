package nbd

import (
	"context"
	"errors"
	"fmt"

	"nbd-dataplane/blockcore"
)

// AddExport offers an export from now on. The first one is also the default export, which clients get who
// name none.
func (s *Server) AddExport(g *blockcore.Graph, o ExportOptions) (*Export, error) {
	if err := checkString(o.Name); err != nil {
		return nil, fmt.Errorf("export name %s: %w", shown(o.Name), err)
	}
	if err := checkString(o.Description); err != nil {
		return nil, fmt.Errorf("description of export %s: %w", shown(o.Name), err)
	}
	e := &Export{
		options: o, graph: g, server: s, budget: newBudget(s.limits.ExportBytes), conns: map[*Conn]struct{}{}, deserted: make(chan struct{}),
	}
	if s.lookupExact(o.Name) != nil {
		return nil, errDuplicate(o.Name)
	}
	if err := e.takeBitmaps(o.Bitmaps); err != nil {
		return nil, err
	}
	err := g.Update(context.Background(), "export "+o.Name, func(tx *blockcore.Tx) (err error) {
		e.ctx.Store(o.Node.Context())
		e.lane = s.laneOf(o.Node.Context())
		e.root, err = tx.NewRoot(o.Node, blockcore.RootOptions{Name: o.Name, Writable: o.Writable, Unshared: o.Unshared, Owner: e})
		return err
	})
	if err != nil {
		if e.lane != nil {
			s.leaveLane(e.lane)
		}
		e.leaveBitmaps()
		return nil, err
	}
	if err := s.offer(e); err != nil {
		e.letGo()
		return nil, err
	}
	return e, nil
}

func errDuplicate(name string) error {
	return fmt.Errorf("NBD server already has export named '%s'", name)
}

// offer makes e visible to clients, when what it offers is allowed and remembered. That may take as long as a file takes to be written: the
// server goes on meanwhile.
func (s *Server) offer(e *Export) error {
	info := e.info()
	info.Size = uint64(e.root.Node().Size()) // as it is: a size that does not fit is a mistake here, and happens later on
	if err := info.checkBlockSizes(); err != nil {
		return fmt.Errorf("export %s: %w", shown(e.Name()), err)
	}
	s.adding.Lock()
	defer s.adding.Unlock()
	if s.lookupExact(e.Name()) != nil {
		return errDuplicate(e.Name())
	}
	undo, err := s.offers.add(e.Name(), e.offer(), e.options.AllowLess)
	if err != nil {
		return refusedOffer(e.Name(), err)
	}
	if err := s.publish(e); err != nil {
		undo()
		return err
	}
	return nil
}

// refusedOffer says what to do about an offer that is less than the one before.
func refusedOffer(name string, err error) error {
	if errors.As(err, new(*lessError)) {
		return fmt.Errorf("export %s: %w; QEMU clients that reconnect abort on that; allow it if there are none (--allow-less, in QMP x-allow-less)", shown(name), err)
	}
	return fmt.Errorf("export %s: %w", shown(name), err)
}

// laneOf returns what the connections on ctx share, for one more export, until leaveLane.
func (s *Server) laneOf(ctx *blockcore.AioContext) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[ctx]
	if l == nil {
		l = newLane(ctx)
		s.lanes[ctx] = l
	}
	l.exports++
	return l
}

// leaveLane counts an export out, and reports whether l has no other: its memory is to be given back then.
func (s *Server) leaveLane(l *lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.exports--
	if l.exports > 0 {
		return false
	}
	delete(s.lanes, l.ctx)
	return true
}

// lookupExact returns the export of that very name, or nil.
func (s *Server) lookupExact(name string) *Export {
	for _, e := range s.snapshot() {
		if e.options.Name == name {
			return e
		}
	}
	return nil
}
