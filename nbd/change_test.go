package nbd

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// update changes the graph in a section of the node.
func (h *house) update(node *blockcore.Node, fn func(tx *blockcore.Tx, d *blockcore.Drained) error) error {
	h.t.Helper()
	d, err := h.graph.Drain(h.t.Context(), blockcore.DrainOptions{Why: "test", Nodes: []*blockcore.Node{node}, Max: patience})
	require.NoError(h.t, err)
	defer d.End()
	return h.graph.Update(h.t.Context(), "test", func(tx *blockcore.Tx) error { return fn(tx, d) })
}

// Goal: what was parked when the node under an export is replaced goes to the new node, and nothing to the old one (T-X10). Method: whole and half
// requests lie with the export while its node is replaced, in each style, on each engine; both disks are looked at.
func TestReplaceUnderAnExport_T_X10(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			next := blocktest.NewFake(blocktest.FakeOptions{Name: "next", Log: h.log})
			to, err := h.graph.AddNode(blockcore.NodeOptions{Name: "next", Context: h.ctx, Driver: next})
			require.NoError(t, err)
			h.nodes = append(h.nodes, to)
			a, b, c := h.dial(dialOptions{style: style}), h.dial(dialOptions{style: style}), h.dial(dialOptions{style: style})
			a.write(0, fill(1, 512))
			half, halfCookie := b.request(CmdWrite, 0, 8192, 0, fill(2, 300_000))
			b.send(half[:100_000])
			h.until("it was received", func() bool { return h.conn(2).large != nil && unread(h.conn(2).fd) == 0 })
			require.NoError(t, h.update(h.node, func(tx *blockcore.Tx, d *blockcore.Drained) error {
				a.post(CmdWrite, 0, 512, 0, fill(3, 512))
				b.send(half[100_000:])
				c.post(CmdRead, 0, 0, 512, nil)
				h.until("all are parked", func() bool { return h.conn(1).blocked && h.conn(2).blocked && h.conn(3).blocked })
				h.log.Take()
				return tx.Replace(d, h.node, to)
			}))
			a.awaitAll()
			b.ok(b.await(halfCookie))
			for _, answer := range c.awaitAll() {
				sameBytes(t, make([]byte, 512), answer.data)
			}
			require.NotContains(t, h.log.Text(), "fake:")
			sameBytes(t, fill(3, 512), next.Contents(blockcore.Range{Offset: 512, Length: 512}))
			sameBytes(t, fill(2, 300_000), next.Contents(blockcore.Range{Offset: 8192, Length: 300_000}))
			require.Equal(t, "next", h.export.Node().Name())
		})
	})
}

// Goal: an export moves between loops under load, and no client notices more than time (T-X15). Method: four clients, one behind TLS, write, read
// and compare; a fifth has not read its replies for the whole time and finds them complete at the end; ten moves, then a thousand, between
// loops of both engines.
func TestMoveUnderLoad_T_X15(t *testing.T) {
	for _, moves := range []int{10, 1000} {
		t.Run(fmt.Sprint(moves), func(t *testing.T) {
			eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
				server, client := serverCredentials(t)
				h := newHouse(t, houseOptions{engine: engine, network: "tcp", disk: blocktest.FakeOptions{SizeBytes: 4 * mib},
					server: ServerOptions{TLS: TLSOptional, Credentials: server}})
				h.tls = client
				lazy := h.dial(dialOptions{style: styleStructured})
				lazy.write(mib, fill(7, 3*mib))
				h.narrow(1)
				for range 5 {
					lazy.post(CmdRead, 0, mib, 3*mib, nil)
				}
				h.until("the socket is full", func() bool { return h.conn(1).out.blocked })
				kind := engine
				if moves == 10 && kind == blockcore.EngineURing {
					kind = blockcore.EngineThreads
				}
				to := h.another(kind)
				h.loaded(func() {
					for i := range moves {
						there := to
						if i%2 == 1 {
							there = h.ctx
						}
						require.NoError(t, h.graph.Move(t.Context(), h.node, there))
						require.Same(t, there, h.export.ctx.Load())
					}
				})
				for _, a := range lazy.awaitAll() {
					sameBytes(t, fill(7, 3*mib), lazy.ok(a).data)
				}
				lazy.alive()
			})
		})
	}
}

// Goal: clients come and go while their export moves, and each one is served to its end (T-X15). Method: clients that connect, ask and leave, one after
// the other, in each way, while the export moves all the time.
func TestClientsComeAndGoDuringMoves(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, network: "tcp"})
		to := h.another(engine)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				require.NoError(t, h.graph.Move(context.Background(), h.node, []*blockcore.AioContext{to, h.ctx}[i%2]))
			}
		})
		for i := range 300 {
			w := h.knock(dialOptions{style: replyStyle(i % 3)})
			w.write(0, fill(byte(i), 512))
			switch i % 4 {
			case 0:
				w.disconnect()
			case 1:
				goodbyes["reset"](t, w.conn)
			case 2:
				w.send(firstOf(w, 100_000, 300_000))
				w.conn.Close()
			case 3:
				for _, c := range h.server.Connections() {
					_ = h.server.Disconnect(c.ID)
				}
				w.conn.Close()
			}
		}
		for range 300 {
			h.closed()
		}
		close(stop)
		wg.Wait()
		require.Zero(t, h.export.Clients())
	})
}

// Goal: moves do not give a client more time to take its last replies. Method: a client that has said DISC and reads nothing, while its export moves
// all the time; it is given up.
func TestMovesDoNotProlongTheLinger(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: Limits{Linger: 100 * time.Millisecond}}})
		w := h.dial(dialOptions{})
		h.narrow(1)
		w.post(CmdRead, 0, 0, mib, nil)
		w.post(CmdDisc, 0, 0, 0, nil)
		h.until("it lingers", func() bool { c := h.conn(1); return c == nil || c.linger != nil }) // or has been given up
		to := h.another(engine)
		for i := 0; h.export.Clients() > 0; i++ {
			require.NoError(t, h.graph.Move(t.Context(), h.node, []*blockcore.AioContext{to, h.ctx}[i%2]))
		}
		require.Equal(t, CauseLinger, h.closed().Cause)
	})
}

// Goal: a move leaves nothing behind on a loop that is closed afterwards. Method: an export is used on ten loops in turn, each closed after it has left; the
// house finds every buffer.
func TestLoopsThatAreLeftKeepNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		w := h.dial(dialOptions{})
		for range 10 {
			there, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "passing", Engine: engine, Buffers: h.pool})
			require.NoError(t, err)
			require.NoError(t, h.graph.Move(t.Context(), h.node, there))
			w.write(0, fill(1, 300_000))
			require.NoError(t, h.graph.Move(t.Context(), h.node, h.ctx))
			there.Close()
			w.alive()
			require.Len(t, h.server.lanes, 1)
		}
	})
}

// memoryDisk is a disk in memory whose size can be changed.
type memoryDisk struct {
	// Guarded by mu.
	mu    sync.Mutex
	bytes []byte
}

func (m *memoryDisk) Size() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.bytes))
}

func (m *memoryDisk) ReadAt(_ *blockcore.Task, p []byte, off int64) error {
	copy(p, m.bytes[off:])
	return nil
}

func (m *memoryDisk) WriteAt(_ *blockcore.Task, p []byte, off int64, _ blockcore.WriteFlags) error {
	copy(m.bytes[off:], p)
	return nil
}

func (m *memoryDisk) Resize(_ *blockcore.Task, sizeBytes int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	bigger := make([]byte, sizeBytes)
	copy(bigger, m.bytes)
	m.bytes = bigger
	return nil
}

func (m *memoryDisk) Close(*blockcore.Task) error { return nil }

func (h *house) resize(sizeBytes int64) {
	h.t.Helper()
	require.NoError(h.t, h.update(h.node, func(tx *blockcore.Tx, d *blockcore.Drained) error { return tx.Resize(d, h.node, sizeBytes) }))
}

// Goal: a resize reaches the clients that are there at once and those that come by the handshake; what is past a smaller size is ENOSPC
// to writes and EINVAL to reads, also where the request had begun to come before; the size that was offered last is the one that an export
// of that name may not fall below. Method: grow, shrink, grow to a size that is no multiple of the minimum block, in each style, on each engine.
func TestResizeUnderClients(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine, driver: &memoryDisk{bytes: make([]byte, mib)}, export: ExportOptions{MinBlock: 512}})
			w, half := h.dial(dialOptions{style: style}), h.dial(dialOptions{style: style})
			w.refused(ENoSpc, w.do(CmdWrite, 0, mib, 0, fill(1, 512)))
			h.resize(2 * mib)
			require.Equal(t, int64(2*mib), h.events.await(t, func(e Event) bool { _, ok := e.(ExportResized); return ok }).(ExportResized).Size)
			w.write(2*mib-512, fill(1, 512))
			sameBytes(t, fill(1, 512), w.read(2*mib-512, 512))
			late := h.dial(dialOptions{style: style})
			require.Equal(t, uint64(2*mib), late.remote.Size)
			late.disconnect()

			request, cookie := half.request(CmdWrite, 0, mib, 0, fill(2, 512*1024))
			half.send(request[:100_000])
			h.until("it was received", func() bool { return h.conn(2).large != nil })
			h.resize(mib)
			half.send(request[100_000:])
			half.refused(ENoSpc, half.await(cookie))
			w.refused(ENoSpc, w.do(CmdWrite, 0, mib, 0, fill(1, 512)))
			w.refused(EInval, w.do(CmdRead, 0, mib-512, 1024, nil))
			w.refused(ENoSpc, w.do(CmdWriteZeroes, 0, mib, 512, nil))
			w.refused(EInval, w.do(CmdTrim, 0, mib, 512, nil))
			for _, other := range []*wireClient{w, half} {
				other.alive()
			}
			for _, e := range h.events.all {
				_, blamed := e.(RequestFailed)
				require.False(t, blamed, "the backend is not at fault: %v", e)
			}

			h.resize(mib + 700)
			late = h.dial(dialOptions{style: style})
			require.Equal(t, uint64(mib+512), late.remote.Size, "whole blocks")
			late.write(mib, fill(3, 512))
			late.refused(ENoSpc, late.do(CmdWrite, 0, mib+512, 0, fill(3, 512)))
			late.disconnect()
			require.Equal(t, uint64(mib+512), h.server.offers.byName["disk"].size)
		})
	})
}

// Goal: a resize under load fails nothing that lies inside of all sizes. Method: four clients write, read and compare while the disk grows and shrinks
// a hundred times.
func TestResizeUnderLoad(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, driver: &memoryDisk{bytes: make([]byte, mib)}})
		h.loaded(func() {
			for i := range int64(100) {
				h.resize(mib + i%7*64<<10)
			}
		})
	})
}

// Goal: reading on from the same connection after a section is exact however much has piled up. Method: two megabytes of small writes sent into a section
// that lasts until the socket is full.
func TestBacklogBehindASection(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 4 * mib}})
		w := h.dial(dialOptions{})
		d := h.drain()
		want := fill(1, 2*mib)
		var stream bytes.Buffer
		for at := 0; at < len(want); at += 4096 {
			request, _ := w.request(CmdWrite, 0, uint64(at), 0, want[at:at+4096])
			stream.Write(request)
		}
		sent := make(chan error, 1)
		go func() { _, err := w.conn.Write(stream.Bytes()); sent <- err }()
		h.until("it is parked", func() bool { return h.conn(1).blocked })
		require.LessOrEqual(t, h.conn(1).end-h.conn(1).begin, slabSize)
		d.End()
		w.awaitAll()
		require.NoError(t, <-sent)
		sameBytes(t, want, h.disk.Contents(blockcore.Range{Length: 2 * mib}))
	})
}
