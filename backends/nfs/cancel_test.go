package nfs

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// guest is a client whose requests can be told from those of others.
type guest string

func (g guest) String() string { return string(g) }

// house is a file in a graph with an owner whose guests come and go.
type house struct {
	*rig
	graph *blockcore.Graph
	node  *blockcore.Node
	root  *blockcore.Root
	disk  *File
}

func newHouse(t *testing.T, so nfstest.Options, change func(*Options)) *house {
	t.Helper()
	h := &house{rig: newRig(t, so, change)}
	h.enter()
	t.Cleanup(func() {
		h.root.Close()
		_ = h.graph.RemoveNodes()
	})
	return h
}

// enter puts the file that is open into a graph.
func (h *house) enter() {
	h.t.Helper()
	h.disk = h.file
	h.graph, h.node, h.root = h.onNode()
	h.root.Close()
	var err error
	h.root, err = h.graph.NewRoot(h.node, blockcore.RootOptions{Name: "r", Writable: true, Movable: true, Permissions: blockcore.PermResize})
	require.NoError(h.t, err)
}

// ask begins a request of a guest.
func (h *house) ask(who guest, fn func(t *blockcore.Task, e *blockcore.Edge) error) chan error {
	h.t.Helper()
	done := make(chan error, 1)
	require.True(h.t, h.root.Context().Post(func() {
		h.root.Context().Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
			k := blockcore.Ticket{Op: "test", Client: who}
			if !h.root.Begin(t, &k) {
				done <- fmt.Errorf("it has moved")
				return
			}
			err := fn(t, h.root.Edge())
			h.root.End(t, &k)
			done <- err
		}))
	}))
	return done
}

func (h *house) writes(who guest, off int64, p []byte, flags blockcore.WriteFlags) chan error {
	h.t.Helper()
	return h.ask(who, func(t *blockcore.Task, e *blockcore.Edge) error {
		buf := t.Buffers().Get(len(p))
		defer t.Buffers().Put(buf)
		copy(buf, p)
		err := e.Write(t, buf, off, flags)
		clear(buf) // who still sends from it sends something else
		return err
	})
}

// reads reads, and has the result at the channel when the request has succeeded.
func (h *house) reads(who guest, off int64, length int) (chan error, chan []byte) {
	h.t.Helper()
	got := make(chan []byte, 1)
	return h.ask(who, func(t *blockcore.Task, e *blockcore.Edge) error {
		buf := t.Buffers().Get(length)
		defer t.Buffers().Put(buf)
		if err := e.Read(t, buf, off); err != nil {
			return err
		}
		got <- bytes.Clone(buf)
		return nil
	}), got
}

func (h *house) flushes(who guest) chan error {
	h.t.Helper()
	return h.ask(who, func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) })
}

// cancel has the requests of a guest end.
func (h *house) cancel(who guest) {
	h.t.Helper()
	require.NoError(h.t, h.root.Context().Do(func(*blockcore.Task) error { return nil }))
	done := make(chan struct{})
	require.True(h.t, h.root.Context().Post(func() { h.root.Cancel(who); close(done) }))
	<-done
}

// cancelled requires that a request was.
func (h *house) cancelled(done chan error) {
	h.t.Helper()
	err := h.wait(done)
	require.ErrorIs(h.t, err, blockcore.ErrCancelled)
	require.ErrorIs(h.t, err, syscall.ECANCELED)
}

// look runs fn on the loop.
func (h *house) look(fn func() bool) (so bool) {
	h.t.Helper()
	require.NoError(h.t, h.root.Context().Do(func(*blockcore.Task) error { so = fn(); return nil }))
	return so
}

// atRest waits until nothing is left of what was cancelled.
func (h *house) atRest() {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		f := h.disk
		return h.look(func() bool { return f.limbos == 0 && f.limboBytes == 0 && f.reserved == 0 && f.resizing == 0 })
	}, patienceMax, time.Millisecond)
}

func (h *house) inFlight(n int64) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return h.node.InFlight() == n }, patienceMax, time.Millisecond)
}

// Goal: what nobody wants any more ends at once in an outage, of each kind and wherever it waits, and nothing else does; counts are right, and all goes on afterwards. Method: two guests with
// reads, writes, writes with FUA and flushes, in ranges of their own and in one that both write to, against a server that is silent, or away; one leaves.
func TestCancelInAnOutage(t *testing.T) {
	for name, away := range map[string]func(s *nfstest.Server) (back func()){
		"silent": func(s *nfstest.Server) func() { s.Silence(); return s.Speak },
		"refuses": func(s *nfstest.Server) func() {
			s.Refuse()
			s.DropConnections(true)
			return s.Accept
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nfstest.Options{WriteBytesMax: 4096, ReadBytesMax: 4096}, nil)
			require.NoError(t, h.wait(h.writes("stays", 200<<10, random(1, 10000), 0)))
			back := away(h.server)
			mine := random(2, 20000)
			common := h.writes("stays", 100<<10, mine, 0)
			staying := []chan error{common, h.writes("stays", 150<<10, mine, blockcore.WriteFUA), h.flushes("stays")}
			reading, _ := h.reads("stays", 0, 5000)
			staying = append(staying, reading)
			leaving := []chan error{
				h.writes("leaves", 0, random(3, 20000), 0), h.writes("leaves", 30000, random(3, 20000), blockcore.WriteFUA),
				h.writes("leaves", 110<<10, random(3, 20000), 0), h.flushes("leaves"), h.flushes("leaves"),
				h.writes("leaves", 1000, random(4, 20000), 0),
			}
			reading, _ = h.reads("leaves", 150<<10, 50000)
			leaving = append(leaving, reading)
			h.inFlight(int64(len(staying) + len(leaving)))
			h.cancel("leaves")
			for _, done := range leaving {
				h.cancelled(done)
			}
			h.inFlight(int64(len(staying)))
			require.EqualValues(t, len(staying), h.root.InFlight())
			back()
			for _, done := range staying {
				require.NoError(t, h.wait(done))
			}
			h.inFlight(0)
			h.atRest()
			require.NoError(t, h.wait(h.flushes("stays")))
			require.Equal(t, mine, h.server.Stable(diskPath)[150<<10:][:len(mine)])
			require.Equal(t, mine[:10<<10], h.server.Stable(diskPath)[100<<10:][:10<<10])
		})
	}
}

// Goal: a WRITE that was given up and that the server executes long after does not undo what was written to its place since. Method: it is held at the server, on one of two
// connections; the next write to that place waits although the other connection works, and is what remains, in what is read and on stable storage, with a crash in between or not.
func TestLateWriteUndoesNothing(t *testing.T) {
	for _, flags := range []blockcore.WriteFlags{0, blockcore.WriteFUA} {
		for _, loss := range []bool{false, true} {
			h := newHouse(t, nfstest.Options{}, func(o *Options) { o.Connections = 2 })
			hold := make(chan struct{})
			h.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{Before: func() { <-hold }}})
			old, fresh := random(1, 9000), random(2, 9000)
			given := h.writes("leaves", 5000, old, flags)
			h.server.AwaitCalls(nfstest.Write, 1)
			h.cancel("leaves")
			h.cancelled(given)
			next := h.writes("stays", 4000, fresh, flags)
			require.NoError(t, h.wait(h.writes("stays", 100000, fresh, 0)), "what is elsewhere goes on")
			require.Equal(t, 2, h.server.Calls(nfstest.Write))
			close(hold)
			require.NoError(t, h.wait(next))
			if loss {
				h.server.LoseUnstable(nfstest.LoseAll)
			}
			want := append(bytes.Clone(fresh), old[len(fresh)-1000:]...)
			reading, got := h.reads("stays", 4000, len(want))
			require.NoError(t, h.wait(reading))
			require.Equal(t, want, <-got)
			require.NoError(t, h.wait(h.flushes("stays")))
			require.Equal(t, want, h.server.Stable(diskPath)[4000:][:len(want)])
			h.atRest()
		}
	}
}

// Goal: what is in limbo survives a lost connection and a move to another loop, and is forgotten with the file. Method: writes of several calls are given up while the server is
// silent, one halfway over the wire; then the connection, the loop, or the file goes.
func TestLimboFollows(t *testing.T) {
	other, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "other"})
	require.NoError(t, err)
	t.Cleanup(other.Close)
	for name, what := range map[string]func(h *house){
		"connection": func(h *house) { h.server.DropConnections(true) },
		"loop":       func(h *house) { require.NoError(t, h.graph.Move(context.Background(), h.node, other)) },
		"both": func(h *house) {
			h.server.Refuse()
			h.server.DropConnections(false)
			require.NoError(t, h.graph.Move(context.Background(), h.node, other))
			h.server.Accept()
		},
		"file": func(h *house) {
			h.root.Close()
			require.NoError(t, h.graph.RemoveNodes())
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nfstest.Options{}, nil)
			h.server.Put(diskPath, nfstest.File{SizeBytes: 64 << 20})
			h.root.Close()
			require.NoError(t, h.graph.RemoveNodes())
			h.open(nil)
			h.enter()
			h.server.Silence()
			big := bytes.Repeat([]byte("old"), 5<<20)
			var given []chan error
			for at := range 2 {
				given = append(given, h.writes("leaves", int64(at)*16<<20, big, 0))
			}
			require.Eventually(t, func() bool {
				return h.look(func() bool { c := h.disk.conns[0]; return c.sent > 0 && c.blocked })
			}, patienceMax, time.Millisecond)
			h.cancel("leaves")
			for _, done := range given {
				h.cancelled(done)
			}
			require.True(t, h.look(func() bool { return h.disk.limbos > 0 }))
			what(h)
			h.server.Speak()
			if name == "file" {
				return
			}
			next := random(4, 1<<20)
			require.NoError(t, h.wait(h.writes("stays", 0, next, 0)))
			h.atRest()
			require.NoError(t, h.wait(h.flushes("stays")))
			stable := h.server.Stable(diskPath)
			require.True(t, bytes.Equal(next, stable[:len(next)]))
			require.True(t, h.look(func() bool { return h.disk.held.pages.count == 0 }))
		})
	}
}

// Goal: a file is not made shorter under WRITEs that would make it longer again, nor shorter by a late SETATTR. Method: a write is given up, and then the file resized; an extension is
// given up, and the file extended further.
func TestSizesAfterLimbo(t *testing.T) {
	h := newHouse(t, nfstest.Options{}, func(o *Options) { o.Connections = 2 })
	hold := make(chan struct{})
	h.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{Before: func() { <-hold }}})
	given := h.writes("leaves", diskBytes-4096, random(1, 4096), 0)
	h.server.AwaitCalls(nfstest.Write, 1)
	h.cancel("leaves")
	h.cancelled(given)
	resized := make(chan error, 1)
	go func() {
		d, err := h.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "resize", Nodes: []*blockcore.Node{h.node}})
		if err == nil {
			err = h.graph.Update(context.Background(), "resize", func(tx *blockcore.Tx) error { return tx.Resize(d, h.node, 65536) })
			d.End()
		}
		resized <- err
	}()
	require.Eventually(t, func() bool { return h.node.Quiesced() > 0 }, patienceMax, time.Millisecond)
	require.Zero(t, h.server.Calls(nfstest.SetAttr))
	close(hold)
	require.NoError(t, h.wait(resized))
	require.Len(t, h.server.Contents(diskPath), 65536)
	h.atRest()

	hold = make(chan struct{})
	h.server.Inject(nfstest.Rule{Proc: nfstest.SetAttr, Fault: nfstest.Fault{Before: func() { <-hold }}})
	extends := func(who guest, to int64) chan error {
		return h.ask(who, func(t *blockcore.Task, e *blockcore.Edge) error { return e.Extend(t, to) })
	}
	given = extends("leaves", 100<<10)
	h.server.AwaitCalls(nfstest.SetAttr, 2)
	h.cancel("leaves")
	h.cancelled(given)
	next := extends("stays", 200<<10)
	require.NoError(t, h.wait(h.flushes("stays")))
	require.Equal(t, 2, h.server.Calls(nfstest.SetAttr))
	close(hold)
	require.NoError(t, h.wait(next))
	require.Len(t, h.server.Contents(diskPath), 200<<10)
	h.atRest()
}

// Goal: an error that only a COMMIT has told of which nobody waited for is not lost. Method: a server that drops the data, says so once, and is not heard; the next FLUSH stores all.
func TestCancelledCommitIsInDoubt(t *testing.T) {
	h := newHouse(t, nfstest.Options{}, nil)
	want := random(5, 50000)
	require.NoError(t, h.wait(h.writes("stays", 0, want, 0)))
	hold := make(chan struct{})
	h.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: nfstest.Fault{
		Before: func() { h.server.LoseUnstable(nfstest.LoseAll) }, Status: nfstest.NoSpc, Hold: hold,
	}})
	given := h.flushes("leaves")
	h.server.AwaitCalls(nfstest.Commit, 1)
	h.cancel("leaves")
	h.cancelled(given)
	close(hold)
	require.NoError(t, h.wait(h.flushes("stays")))
	require.Equal(t, want, h.server.Stable(diskPath)[:len(want)])
}

// Goal: at the end of the program what waits ends, whoever wants it, and files are closed. Method: requests of a guest and of nobody, silence, and CancelAll.
func TestCancelAll(t *testing.T) {
	h := newHouse(t, nfstest.Options{}, nil)
	require.NoError(t, h.wait(h.writes("stays", 0, random(1, 5000), 0)))
	h.server.Silence()
	waits := []chan error{h.writes("stays", 0, random(2, 5000), 0), h.flushes("stays")}
	h.inFlight(2)
	h.graph.CancelAll()
	for _, done := range waits {
		h.cancelled(done)
	}
	h.root.Close()
	begin := time.Now()
	require.ErrorIs(t, h.graph.RemoveNodes(), blockcore.ErrCancelled, "what was not stored is said")
	require.Less(t, time.Since(begin), closeMax/2)
}
