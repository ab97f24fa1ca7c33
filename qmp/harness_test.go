package qmp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
)

// stage is a server with commands for tests, which a script can steer.
type stage struct {
	server *Server

	mu sync.Mutex
	// Guarded by mu.
	gates  map[string]chan struct{}
	closes []string
	quits  int
}

func newStage() *stage {
	s := &stage{gates: map[string]chan struct{}{}}
	version := VersionOf(7, 2, 22, "test")
	s.server = New(Options{Version: version, Commands: s.commands(), Quit: func() { s.quits++ }})
	return s
}

type waitArgs struct {
	Gate string `qmp:"gate"`
}

type emitArgs struct {
	Name  string `qmp:"name"`
	Count *int   `qmp:"count"`
	Data  Value  `qmp:"data,optional"`
}

func (s *stage) commands() []Command {
	return []Command{
		{Name: "echo", OOB: true, Handler: func(_ context.Context, call *Call) (any, error) { return call.Arguments.Raw(), nil }},
		{Name: "wait", Handler: With(s.wait)},
		{Name: "open", OOB: true, Handler: With(s.open)},
		{Name: "emit", OOB: true, Handler: With(s.emit)},
		{Name: "fail", Handler: NoArgs(func(context.Context, *Call) (any, error) { return nil, errors.New("it \"failed\"\nbadly") })},
		{Name: "gone", Handler: NoArgs(func(context.Context, *Call) (any, error) {
			return nil, &Error{DeviceNotFound, "Device 'x' not found"}
		})},
		{Name: "busy", Handler: NoArgs(func(context.Context, *Call) (any, error) {
			return nil, &Detailed{errors.New("busy"), map[string]int{"by": 2}}
		})},
		{Name: "no-json", Handler: NoArgs(func(context.Context, *Call) (any, error) { return func() {}, nil })},
		{Name: "hold", Handler: With(func(_ context.Context, call *Call, args *waitArgs) (any, error) {
			call.Connection.OnClose(func() { s.note(args.Gate) })
			return nil, nil
		})},
	}
}

func (s *stage) gate(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gates[name] == nil {
		s.gates[name] = make(chan struct{})
	}
	return s.gates[name]
}

func (s *stage) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes = append(s.closes, what)
}

func (s *stage) wait(ctx context.Context, _ *Call, args *waitArgs) (any, error) {
	select {
	case <-s.gate(args.Gate):
		return map[string]string{"through": args.Gate}, nil
	case <-ctx.Done():
		s.note("gave up")
		return nil, ctx.Err()
	}
}

func (s *stage) open(_ context.Context, _ *Call, args *waitArgs) (any, error) {
	close(s.gate(args.Gate))
	return nil, nil
}

func (s *stage) emit(_ context.Context, _ *Call, args *emitArgs) (any, error) {
	count := 1
	if args.Count != nil {
		count = *args.Count
	}
	for range count {
		s.server.Broadcast(args.Name, args.Data.Raw())
	}
	return nil, nil
}

// monitor is a client of the crudest kind.
type monitor struct {
	conn net.Conn
	done chan struct{} // serving has ended

	mu sync.Mutex
	// Guarded by mu.
	output bytes.Buffer
}

// connect is called in a bubble of synctest.
func (s *stage) connect(options Monitor) *monitor {
	m := s.connectDeaf(options)
	go m.collect()
	return m
}

// connectDeaf is a monitor that reads nothing.
func (s *stage) connectDeaf(options Monitor) *monitor {
	ours, theirs := net.Pipe()
	m := &monitor{conn: ours, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		s.server.ServeConn(theirs, options)
	}()
	return m
}

func (m *monitor) collect() {
	buffer := make([]byte, 4096)
	for {
		n, err := m.conn.Read(buffer)
		m.mu.Lock()
		m.output.Write(buffer[:n])
		if err == io.EOF {
			m.output.WriteString("(end)\r\n")
		}
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// took is what has come since it was asked last, when nothing more will come by itself.
func (m *monitor) took() string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	text := m.output.String()
	m.output.Reset()
	return text
}

func (m *monitor) say(text string) { go m.conn.Write([]byte(text)) }

// ask says something and returns what is answered.
func (m *monitor) ask(text string) string {
	m.say(text)
	return m.took()
}

// negotiated is a monitor past its greeting.
func (s *stage) negotiated() *monitor {
	m := s.connect(Monitor{})
	m.ask(`{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}`)
	return m
}

// inBubble runs a test in a bubble of synctest and closes the server at the end.
func inBubble(t *testing.T, test func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		defer s.server.Close()
		test(t, s)
	})
}
