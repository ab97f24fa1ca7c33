package nbd

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// serveFully is what a client that nobody hinders can do.
func serveFully(w *wireClient) {
	w.t.Helper()
	data := fill(byte(w.cookie), 200_000)
	w.write(1000, data)
	sameBytes(w.t, data, w.read(1000, 200_000))
	w.ok(w.do(CmdWrite, CmdFlagFUA, 500_000, 0, data[:4096]))
	w.ok(w.do(CmdTrim, 0, 500_000, 4096, nil))
	w.ok(w.do(CmdWriteZeroes, 0, 1000, 4096, nil))
	sameBytes(w.t, make([]byte, 4096), w.read(1000, 4096))
	w.flush()
}

// Goal: clients that stall cost the others nothing, and little memory (REQ-9, GEN-7). Method: dozens of them, each kind of stall; a client
// beside them works as if it were alone; on each engine.
func TestStalledClients(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		for range 5 {
			for _, n := range []int{0, 1, 27, 28, 28 + 300, 28 + 40_000} {
				w := h.dial(dialOptions{})
				w.send(firstOf(w, n, 60_000))
			}
			refused := h.dial(dialOptions{})
			b, _ := refused.request(CmdWrite, 0, 2*mib, 0, fill(1, 1000))
			refused.send(b[:500])
			garbage := h.dial(dialOptions{})
			garbage.send(fill(1, 5000))
			garbage.atEnd()
			unread := h.dial(dialOptions{})
			unread.send(unread.encode(unread.header(CmdRead, 0, 0, mib), nil))
		}
		serveFully(h.dial(dialOptions{style: styleStructured}))
		require.Less(t, h.pool.Stats().InUse, int64(32*mib))
	})
}

// Goal: a client that asks for sixteen times 32 MiB and never reads pins less than 64 MiB, hinders nobody, and is served when it reads
// after all (REQ-9, SZ-5). Method: the memory that is out while the socket is full and nothing is taken from it any more; on each engine.
func TestClientThatNeverReads(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 32 * mib}})
		other := h.dial(dialOptions{})
		other.write(0, fill(1, 32*mib))
		w := h.dial(dialOptions{style: styleStructured})
		for range 16 {
			w.post(CmdRead, 0, 0, 32*mib, nil)
		}
		h.until("nothing moves", func() bool { c := h.conn(2); return c.blocked && c.out.blocked && c.inFlight == 0 })
		require.Less(t, h.pool.Stats().InUse, int64(64*mib))
		serveFully(other)
		other.write(0, fill(1, 32*mib))
		for range 3 {
			for a := (*answer)(nil); a == nil; {
				var err error
				a, err = w.next()
				require.NoError(t, err)
				require.True(t, a == nil || len(a.data) == 32*mib)
			}
		}
		w.conn.Close()
		require.Equal(t, CauseReset, h.closed().Cause)
	})
}

// Goal: short READs cannot be piled up beyond what is charged either, although each holds a page at least (REQ-9). Method: more of them than
// the limit has pages, of which none is read; the memory that is out when nothing moves; then all are answered.
func TestClientThatNeverReadsShort(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, length := range []uint64{1, 4097} {
			h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: Limits{ConnectionBytes: 4 * mib}}})
			w := h.dial(dialOptions{})
			h.narrow(0)
			var stream []byte
			for range 3000 {
				stream = append(stream, w.encode(w.header(CmdRead, 0, 0, length), nil)...)
			}
			sent := make(chan error, 1)
			go func() { _, err := w.conn.Write(stream); sent <- err }()
			h.until("nothing moves", func() bool { k := h.conn(0); return k.blocked && k.out.blocked && k.inFlight == 0 })
			require.Less(t, h.pool.Stats().InUse, int64(8*mib))
			require.Len(t, w.awaitAll(), 3000)
			require.NoError(t, <-sent)
			w.disconnect()
		}
	})
}

// Goal: replies without data cannot be piled up either (REQ-9). Method: thousands of requests of which none is read, errors with their
// texts and maps of a fragmented disk; the outbox stays small until the client reads, and then all are answered.
func TestClientThatNeverReadsErrors(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, c := range []struct {
			name   string
			count  int
			length uint64
			pile   int
			header header
		}{
			{"errors", 20_000, 0, outboxHeadersMax, header{command: Command(99)}},
			{"maps", 10, statusExtentsMax * 512, outboxHeadersMax + 8*mib, header{command: CmdBlockStatus}},
		} {
			h := newHouse(t, houseOptions{engine: engine, driver: &stripedDisk{stripes: statusExtentsMax}})
			w := h.dial(dialOptions{style: styleStructured, contexts: []string{ContextAllocation}})
			var stream []byte
			for range c.count {
				stream = append(stream, w.encode(w.header(c.header.command, 0, 0, c.length), nil)...)
			}
			h.narrow(1)
			sent := make(chan error, 1)
			go func() { _, err := w.conn.Write(stream); sent <- err }()
			h.until("nothing moves", func() bool { k := h.conn(0); return k.blocked && k.out.blocked && k.crammed() && k.inFlight == 0 })
			var held, charged int
			h.onLoop(func() { k := h.conn(0); held, charged = k.out.held, int(k.bytes) })
			require.Less(t, held, c.pile+64<<10)
			require.Less(t, held-charged, outboxHeadersMax+64<<10, "what a reply holds is charged until it has left")
			serve := h.dial(dialOptions{})
			serve.ok(serve.do(CmdWrite, 0, 0, 0, fill(1, 1000)))
			require.Len(t, w.awaitAll(), c.count)
			require.NoError(t, <-sent)
			w.disconnect()
		}
	})
}

// Goal: replies without data that nobody reads are in the budget of the process, and who finds nothing left there is served
// nevertheless, a little at a time (REQ-9). Method: a budget for two connections; a dozen clients that send errors and read nothing; what
// they hold when nothing moves; then all are answered.
func TestClientsThatNeverReadErrorsShareABudget(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		const clients, count, licences = 6, 20_000, 2
		h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: Limits{ProcessBytes: licences * outboxHeadersMax}}})
		var all []*wireClient
		sent := make(chan error, clients)
		for range clients {
			w := h.dial(dialOptions{style: styleStructured})
			h.narrow(h.dialed)
			var stream []byte
			for range count {
				stream = append(stream, w.encode(w.header(Command(99), 0, 0, 0), nil)...)
			}
			go func() { _, err := w.conn.Write(stream); sent <- err }()
			all = append(all, w)
		}
		held, licensed := 0, 0
		h.until("nothing moves", func() bool {
			held, licensed = 0, 0
			for id := range uint64(clients) {
				k := h.conn(id + 1)
				if !k.blocked || !k.out.blocked || k.inFlight > 0 {
					return false
				}
				held += k.out.held
				if k.out.licensed {
					licensed++
				}
			}
			return true
		})
		require.Equal(t, licences, licensed)
		require.Less(t, held, licences*(outboxHeadersMax+64<<10)+(clients-licences)*(outboxHeadersFree+64<<10))
		for _, w := range all {
			require.Len(t, w.awaitAll(), count)
			require.NoError(t, <-sent)
			w.disconnect()
		}
	})
}

// Goal: requests and bytes in flight are bounded by connection, export and process, and at the bound the server stops reading and
// nothing is lost (REQ-9). Method: small limits, requests held in the disk; what is there when nothing moves is what the limit allows; then
// all is let go and answered.
func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		limits       Limits
		first, other int // requests in the disk of the first and of both clients
	}{
		"requests":         {Limits{Requests: 3}, 3, 6},
		"connection bytes": {Limits{ConnectionBytes: 2*mib + 1}, 2, 4},
		"export bytes":     {Limits{ExportBytes: 4 * mib}, 4, 5},
		"process bytes":    {Limits{ProcessBytes: 2 * mib}, 2, 3},
		"one byte":         {Limits{ConnectionBytes: 1, ExportBytes: 1, ProcessBytes: 1}, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
				h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: c.limits}, disk: blocktest.FakeOptions{SizeBytes: 16 * mib}})
				gate := blocktest.NewGate()
				h.disk.Add(blocktest.Rule{Op: blocktest.OpRead, Gate: gate})
				var clients []*wireClient
				for _, want := range []int{c.first, c.other} {
					w := h.dial(dialOptions{style: styleStructured})
					clients = append(clients, w)
					for i := range uint64(10) {
						w.post(CmdRead, 0, i*mib, mib, nil)
					}
					id := uint64(len(clients))
					h.until("the bound is met", func() bool { return h.conn(id).blocked })
					require.Equal(t, want, h.disk.Active())
				}
				gate.Open()
				for _, w := range clients {
					for _, a := range w.awaitAll() {
						w.ok(a)
					}
				}
				h.until("nothing is held", func() bool { return h.server.budget.used.Load() == 0 && h.export.budget.used.Load() == 0 })
			})
		})
	}
}

// Goal: payloads that are being received count as well, and long ones from many clients get through one after the other (REQ-9). Method: eight
// clients write a few MiB at once under limits of less than one of them.
func TestNobodyStarves(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 32 * mib},
			server: ServerOptions{Limits: Limits{ConnectionBytes: mib, ExportBytes: mib, ProcessBytes: mib}}})
		var clients sync.WaitGroup
		failures := make(chan error, 8)
		for i := range 8 {
			w := h.dial(dialOptions{style: styleStructured})
			clients.Go(func() { failures <- writeAndVerify(w, uint64(i)*4*mib, byte(i)) })
		}
		clients.Wait()
		for range 8 {
			require.NoError(t, <-failures)
		}
	})
}

// writeAndVerify writes and reads 3 MiB in several sizes. It is for a goroutine of its own.
func writeAndVerify(w *wireClient, offset uint64, seed byte) error {
	data := fill(seed, 3*mib)
	for _, size := range []uint64{3 * mib, 100_000, 4096} {
		for at := uint64(0); at < uint64(len(data)); at += size {
			b, cookie := w.request(CmdWrite, 0, offset+at, 0, data[at:min(at+size, uint64(len(data)))])
			if err := w.exchange(b, cookie, nil); err != nil {
				return err
			}
		}
		b, cookie := w.request(CmdRead, 0, offset, uint64(len(data)), nil)
		if err := w.exchange(b, cookie, data); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends a request and checks its answer, without the help of a test.
func (w *wireClient) exchange(b []byte, cookie uint64, want []byte) error {
	if _, err := w.conn.Write(b); err != nil {
		return err
	}
	for {
		a, err := w.next()
		switch {
		case err != nil:
			return err
		case a == nil || a.header.cookie != cookie:
		case a.errno != 0 || want != nil && string(a.data) != string(want):
			return fmt.Errorf("%v at %d: %v %s, or wrong data", a.header.command, a.header.offset, a.errno, a.text)
		default:
			return nil
		}
	}
}

// Goal: a client that always lags a little, so that the outbox is never empty, costs no more the longer it does (REQ-9). Method: reads kept
// outstanding while their answers are taken one by one; the list of what is to be sent stays short.
func TestClientThatLags(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: Limits{Requests: 1024}}})
		w := h.dial(dialOptions{style: styleStructured})
		h.narrow(1)
		for range 32 {
			w.post(CmdRead, CmdFlagDF, 0, 60_000, nil)
		}
		h.until("the socket is full", func() bool { return h.conn(0).out.blocked })
		longest := 0
		for range 3000 {
			for {
				a, err := w.next()
				require.NoError(t, err)
				if a != nil {
					break
				}
			}
			w.post(CmdRead, CmdFlagDF, 0, 60_000, nil)
		}
		h.onLoop(func() { longest = len(h.conn(0).out.segments) })
		require.Less(t, longest, 3*segmentsKeptMax)
		w.awaitAll()
		w.disconnect()
	})
}

// Goal: the bound of the process holds against clients that pin long requests, who are cut off when somebody waits, and not before
// (REQ-9). Method: clients that ask for 2 MiB and never read, or send half of a payload, until the budget is full; then one that wants
// as much and is served.
func TestStalledClientsMakeRoom(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		const limit = 4 * mib
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 32 * mib},
			server: ServerOptions{Limits: Limits{ProcessBytes: limit, Stall: 200 * time.Millisecond}}}) // longer than who goes on waits for a processor
		const clients = 8
		for n := range clients {
			w := h.dial(dialOptions{})
			h.narrow(h.dialed)
			if n%2 == 0 {
				w.post(CmdRead, 0, 0, 2*mib, nil)
			} else {
				b, _ := w.request(CmdWrite, 0, 0, 2*mib, fill(1, 2*mib))
				_, _ = w.conn.Write(b[:mib]) // it may be cut off meanwhile
			}
		}
		require.Equal(t, CauseStalled, h.closed().Cause)
		require.LessOrEqual(t, h.server.budget.used.Load(), int64(2*limit+clients*reserveStep))
		w := h.dial(dialOptions{})
		w.write(0, fill(3, 4*mib))
		sameBytes(t, fill(3, 4*mib), w.read(0, 4*mib))
		w.disconnect()
	})
}

// Goal: replies without data that are not read are no way to keep the budget from others either (REQ-9). Method: a client that sends
// errors and reads nothing has all of the budget; one that wants to have two requests in flight gets it.
func TestStalledErrorsMakeRoom(t *testing.T) {
	h := newHouse(t, houseOptions{server: ServerOptions{Limits: Limits{ProcessBytes: reserveStep, Stall: 20 * time.Millisecond}}})
	stalls := h.dial(dialOptions{style: styleStructured})
	h.narrow(0)
	var stream []byte
	for range 20_000 {
		stream = append(stream, stalls.encode(stalls.header(Command(99), 0, 0, 0), nil)...)
	}
	sent := make(chan error, 1)
	go func() { _, err := stalls.conn.Write(stream); sent <- err }()
	h.until("nothing moves", func() bool { k := h.conn(1); return k.blocked && k.out.blocked && k.out.licensed && k.inFlight == 0 })
	gate := blocktest.NewGate()
	h.disk.Add(blocktest.Rule{Op: blocktest.OpRead, Gate: gate})
	w := h.dial(dialOptions{})
	for range 2 {
		w.post(CmdRead, 0, 0, 600_000, nil)
	}
	gate.WaitHeld(1)
	require.Equal(t, CauseStalled, h.closed().Cause)
	require.Error(t, <-sent)
	gate.Open()
	w.awaitAll()
}

// Goal: a slow client is left alone while its time is not over. Method: the look for stalled connections that others would cause, at one
// whose socket has just become full; it is served when it reads.
func TestStallIsNoCrime(t *testing.T) {
	h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{SizeBytes: 4 * mib}, server: ServerOptions{Limits: Limits{Stall: time.Hour}}})
	w := h.dial(dialOptions{})
	h.narrow(0)
	w.post(CmdRead, 0, 0, 2*mib, nil)
	h.until("the socket is full", func() bool { return h.conn(0).out.blocked })
	h.onLoop(func() { h.conn(0).cutIfStalled() })
	w.awaitAll()
	w.disconnect()
}
