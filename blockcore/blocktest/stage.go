package blocktest

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// stage is where a scenario plays: a graph of Layers on a few loops, with sections and requests under names. After each command
// it waits until every loop has done what it can, so that each run says the same.
type stage struct {
	// Immutable.
	t     *testing.T
	log   *Log
	graph *blockcore.Graph
	main  *blockcore.AioContext

	// Owned by the goroutine of the test.
	loops    []*blockcore.AioContext
	stopped  map[*blockcore.AioContext]bool
	layers   map[string]*Layer
	roots    map[string]*blockcore.Root
	sections map[string]*section
	jobs     *blockcore.Jobs
	jobNames map[string]*blockcore.Job
	said     []string

	// Safe from anywhere.
	requests sync.WaitGroup
}

// section is a drain that was asked for.
type section struct {
	done    chan struct{} // closed when the drain has returned
	drained *blockcore.Drained
	err     error
}

func newStage(t *testing.T) *stage {
	s := &stage{
		t: t, log: &Log{}, stopped: map[*blockcore.AioContext]bool{}, jobNames: map[string]*blockcore.Job{},
		layers: map[string]*Layer{}, roots: map[string]*blockcore.Root{}, sections: map[string]*section{},
	}
	t.Cleanup(s.dismantle)
	s.main = s.newLoop("main")
	s.graph = blockcore.NewGraphWith(blockcore.GraphOptions{Main: s.main, OnEvent: s.event})
	s.jobs = blockcore.NewJobs(s.graph)
	return s
}

func (s *stage) newLoop(name string) *blockcore.AioContext {
	c, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: name})
	require.NoError(s.t, err)
	s.loops = append(s.loops, c)
	return c
}

// event takes down what jobs go through.
func (s *stage) event(e blockcore.Event) {
	if e, ok := e.(blockcore.JobStatusChanged); ok {
		s.log.Add("job %s: %v", e.ID, e.Status)
	}
}

// do executes a command and returns what it says: first what happened, then its own words.
func (s *stage) do(words []string) []string {
	s.t.Helper()
	perform := commands[words[0]]
	if perform == nil {
		s.t.Fatalf("no such command: %q", words)
	}
	s.said = nil
	perform(s, parseLine(words[1:]))
	s.calm()
	return append(strings.FieldsFunc(s.log.Take(), func(r rune) bool { return r == '\n' }), s.said...)
}

// calm returns when every loop has nothing left to do but what waits for a gate, and no job is about to end.
func (s *stage) calm() {
	s.calmLoops()
	for _, j := range s.jobs.All() {
		for ending(j) {
			runtime.Gosched()
		}
	}
	s.calmLoops()
}

func ending(j *blockcore.Job) bool {
	switch status := j.Status(); {
	case status == blockcore.JobWaiting, status == blockcore.JobAborting:
		return true
	case status < blockcore.JobWaiting:
		return j.Completing() && j.Pauses() == 0
	}
	return false
}

func (s *stage) calmLoops() {
	for range 3 {
		for _, c := range s.loops {
			if s.stopped[c] {
				continue
			}
			require.NoError(s.t, c.Do(func(t *blockcore.Task) error {
				for range 8 {
					t.Yield()
				}
				return nil
			}))
		}
	}
}

func (s *stage) say(format string, args ...any) {
	s.said = append(s.said, variable.ReplaceAllString(fmt.Sprintf(format, args...), "(time)"))
}

// variable is what differs from run to run in a message.
var variable = regexp.MustCompile(`\b\d+(\.\d+)?(ns|us|ms|s)\b`)

// sayError says what became of something.
func (s *stage) sayError(what string, err error) {
	if err != nil {
		s.say("%s: %v", what, err)
	}
}

func (s *stage) node(name string) *blockcore.Node {
	n := s.graph.Node(name)
	if n == nil {
		s.t.Fatalf("no such node: %s", name)
	}
	return n
}

func (s *stage) root(name string) *blockcore.Root {
	r := s.roots[name]
	if r == nil {
		s.t.Fatalf("no such root: %s", name)
	}
	return r
}

func (s *stage) loop(name string) *blockcore.AioContext {
	for _, c := range s.loops {
		if c.Name() == name {
			return c
		}
	}
	s.t.Fatalf("no such loop: %s", name)
	return nil
}

// covering returns the section of that name, once it has settled, or nil for "".
func (s *stage) covering(name string) *blockcore.Drained {
	if name == "" {
		return nil
	}
	sec := s.sections[name]
	if sec == nil {
		s.t.Fatalf("no such section: %s", name)
	}
	<-sec.done
	return sec.drained
}

// update changes the graph under a section, or, where none is named, under one of its own that covers nodes.
func (s *stage) update(what, under string, nodes []*blockcore.Node, fn func(tx *blockcore.Tx, d *blockcore.Drained) error) {
	d := s.covering(under)
	if d == nil && len(nodes) > 0 {
		var err error
		d, err = s.graph.Drain(context.Background(), blockcore.DrainOptions{Why: what, Nodes: nodes})
		if err != nil {
			s.sayError(what, err)
			return
		}
		defer d.End()
	}
	s.sayError(what, s.graph.Update(context.Background(), what, func(tx *blockcore.Tx) error { return fn(tx, d) }))
}

// letGo releases whatever waits: at gates, in sections, in jobs.
func (s *stage) letGo() {
	for _, l := range s.layers {
		l.gate.Open()
		for _, op := range []string{"read", "write", "flush", "resize", "close"} {
			l.Fail(op, 0)
		}
	}
	for _, sec := range s.sections {
		<-sec.done
		if sec.drained != nil {
			sec.drained.End()
		}
	}
	for _, j := range s.jobs.All() {
		_ = j.Do(blockcore.JobCancel)
	}
}

// dismantle leaves nothing behind, however the scenario has ended.
func (s *stage) dismantle() {
	s.letGo()
	for _, j := range s.jobNames {
		<-j.Concluded()
	}
	for _, c := range s.loops {
		c.Close()
	}
}

// strike ends the scenario: everything is let go, and nothing is left in flight, quiesced or held.
func (s *stage) strike() {
	s.letGo()
	s.requests.Wait()
	for _, j := range s.jobs.All() {
		<-j.Concluded()
	}
	s.calm()
	for _, n := range s.graph.Nodes() {
		require.Zero(s.t, n.InFlight(), "in flight in node %s", n.Name())
		require.Zero(s.t, n.Quiesced(), "sections of node %s", n.Name())
		require.Zero(s.t, s.layers[n.Name()].Still(), "driver of node %s", n.Name())
	}
	for _, r := range s.graph.Roots() {
		require.Zero(s.t, r.InFlight(), "in flight at root %s", r.Name())
		require.Zero(s.t, r.Quiesced(), "sections of root %s", r.Name())
		if _, ok := s.roots[r.Name()]; ok {
			r.Close()
		}
	}
	require.Empty(s.t, s.graph.Roots())
	require.Empty(s.t, s.graph.Requests())
	require.Empty(s.t, s.graph.Sections())
	for len(s.graph.Nodes()) > 0 {
		for _, n := range s.graph.Nodes() {
			if s.graph.Node(n.Name()) == n && len(n.Parents()) == 0 {
				require.NoError(s.t, s.graph.RemoveNode(n))
			}
		}
	}
}

// owner takes part in drains and says so.
type owner struct {
	name string
	log  *Log
}

func (o *owner) Quiesce()   { o.log.Add("%s: quiesce", o.name) }
func (o *owner) Busy() bool { return false }
func (o *owner) Resume()    { o.log.Add("%s: resume", o.name) }

// mover is an owner that follows its node.
type mover struct{ owner }

func (m *mover) MayMove(*blockcore.AioContext) error { return nil }
func (m *mover) Detach(to *blockcore.AioContext)     { m.log.Add("%s: leaves its loop", m.name) }
func (m *mover) Attach(c *blockcore.AioContext)      { m.log.Add("%s: enters %s", m.name, c.Name()) }

// asker is a request.
type asker struct {
	// Immutable.
	stage *stage
	root  *blockcore.Root
	name  string
	op    string
	count int

	// Owned by the context.
	ticket blockcore.Ticket
}

func (a *asker) String() string { return a.name }

// begin starts the request on the loop of its Root.
func (a *asker) begin() {
	c := a.root.Context()
	if !c.Post(func() { c.Spawn(a) }) {
		a.stage.log.Add("%s: %v", a.name, blockcore.ErrContextClosed)
		a.stage.requests.Done()
	}
}

// Run is the request. It implements blockcore.Body.
func (a *asker) Run(t *blockcore.Task) {
	a.ticket.Op, a.ticket.Range, a.ticket.Client = a.op, blockcore.Range{Length: 512}, a
	if !a.root.Begin(t, &a.ticket) {
		a.stage.log.Add("%s: sent on to %s", a.name, a.root.Context().Name())
		a.begin()
		return
	}
	p := t.Buffers().Get(512)
	defer t.Buffers().Put(p)
	var err error
	switch e := a.root.Edge(); a.op {
	case "read":
		err = e.Read(t, p, 0)
	case "write":
		err = e.Write(t, p, 0, 0)
	case "flush":
		err = e.Flush(t)
	}
	a.stage.log.Add("%s: %s", a.name, outcome(err))
	a.root.End(t, &a.ticket)
	a.stage.requests.Done()
}

// begun waits until somebody else has begun a section for why.
func (s *stage) begun(why string, done <-chan struct{}) {
	for !slices.ContainsFunc(s.graph.Sections(), func(d *blockcore.Drained) bool { return d.Why() == why }) {
		select {
		case <-done:
			return
		default:
			runtime.Gosched()
		}
	}
}

// errnoOf turns a name into a number.
func (s *stage) errnoOf(name string) syscall.Errno {
	for _, errno := range []syscall.Errno{0, syscall.EIO, syscall.ENOSPC, syscall.EINVAL, syscall.ENOMEM} {
		if name == outcome(errno) || name == "ok" && errno == 0 {
			return errno
		}
	}
	s.t.Fatalf("no such error: %s", name)
	return 0
}
