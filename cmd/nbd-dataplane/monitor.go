package main

import (
	"fmt"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/qmp"
)

// makeGraph makes the graph, and the control plane where one was asked for. On the first loop runs what is on no other.
func (s *session) makeGraph() error {
	s.graph = blockcore.NewGraphWith(blockcore.GraphOptions{Main: s.contexts[0], OnEvent: s.onGraphEvent})
	s.opener = newPlane(control.Options{
		Graph: s.graph, Main: s.contexts[0], Quit: func() { s.end(ending{why: "a monitor said quit"}) }, OnStorage: func(e control.StorageHealth) { s.events.put(e) },
	}, s.journal)
	if s.o.control == "" {
		return nil
	}
	s.plane = s.opener
	s.plane.AdoptServer(s.server, s.o.shared)
	for _, c := range s.contexts {
		if err := s.plane.AdoptIOThread(c); err != nil {
			return err
		}
	}
	return nil
}

// onGraphEvent receives what happens in the graph. It does not block.
func (s *session) onGraphEvent(e blockcore.Event) {
	s.events.put(e)
	if s.plane != nil {
		s.plane.TellGraph(e)
	}
}

// openMonitor lets monitors connect.
func (s *session) openMonitor() (err error) {
	if s.plane == nil {
		return nil
	}
	if s.monitor, err = listenMonitor(s.o.control); err != nil {
		return err
	}
	go s.monitorLoop()
	return nil
}

// listenMonitor makes the socket of --control.
func listenMonitor(path string) (*place, error) {
	p, err := listenPrivately(path, false)
	if err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	return p, nil
}

// monitorLoop takes monitors until the session stops.
func (s *session) monitorLoop() { _ = s.plane.Monitor().Serve(s.monitor.listener, qmp.Monitor{}) }

// quietMonitor has no command of monitors run any more. They stay connected until the end.
func (s *session) quietMonitor() {
	if s.plane == nil {
		return
	}
	s.plane.Quiet()
	releaseHeld(s.graph)
	if s.monitor != nil {
		s.monitor.close()
	}
}

// removeNodes closes the nodes, and those that monitors have put there, from the top down.
func (s *session) removeNodes() error {
	if s.graph == nil {
		return nil
	}
	return s.graph.RemoveNodes()
}

// exportID is what monitors call an export of the command line: by its name if that will do, or else by its number.
func exportID(name string, n int) string {
	if blockcore.IsIdentifier(name) {
		return name
	}
	return fmt.Sprintf("export%d", n)
}

// driver is the name of the block driver that an image is opened with.
func (img *image) driver() string {
	if img.isNull {
		return "null-co"
	}
	switch {
	case img.node != nil:
		return formatQcow2
	case img.nfs != nil:
		return driverNFS
	}
	return "file"
}
