package nfs

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/membuf"
	"nbd-dataplane/internal/simkit"
)

// simScript has a script take the place of all that the simulation does by itself: the server is well, and as fast as the script says.
func simScript(t *testing.T, timeout, slow time.Duration, script func(c *simThread)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(simConfig{seed: 1}, true)
		w.rng = rand.New(rand.NewPCG(1, 1))
		w.pullMax, w.slow, w.between = 1<<16, slow, time.Second
		w.server = nfstest.New(t, nfstest.Options{})
		w.server.Put(simFile, nfstest.File{SizeBytes: 1 << 20})
		w.loopsAndGraph()
		w.open(&Options{Host: "server", Path: simFile, Timeout: timeout, OnHealth: w.health}, 1<<20, wire.Sizes{ReadMax: 4096, WriteMax: 4096})
		w.launch("script", func(c *simThread) {
			if c.enter() {
				script(c)
				w.root.Close()
				c.pause(0)
				_ = w.graph.RemoveNodes()
				c.pause(0)
			}
			w.Ended = true
		})
		w.Play(w.choose)
		w.Close()
		w.settleLinks()
		require.Empty(t, w.Result().Failure)
	})
}

// do runs a function as a request.
func (c *simThread) do(fn func(t *blockcore.Task, e *blockcore.Edge) error) error {
	w := c.w
	err := w.root.Context().Do(func(t *blockcore.Task) error {
		k := blockcore.Ticket{Op: "script"}
		w.root.Begin(t, &k)
		defer w.root.End(t, &k)
		return fn(t, w.root.Edge())
	})
	c.pause(0)
	w.Progress()
	return err
}

func (c *simThread) read() error {
	return c.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(512)
		defer t.Buffers().Put(p)
		return e.Read(t, p, 0)
	})
}

// readBehind is read, of which nobody waits for the end.
func (c *simThread) readBehind() chan error {
	done, root := make(chan error, 1), c.w.root
	root.Context().Post(func() {
		root.Context().Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
			k := blockcore.Ticket{Op: "behind"}
			root.Begin(t, &k)
			p := t.Buffers().Get(512)
			err := root.Edge().Read(t, p, 0)
			t.Buffers().Put(p)
			root.End(t, &k)
			done <- err
		}))
	})
	return done
}

func (c *simThread) write(off int64) error {
	return c.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		return e.WriteZeroes(t, blockcore.Range{Offset: off, Length: 512}, 0)
	})
}

// Goal: a connection that has died is made anew although each call is given up before it has been silent for long. Method: such a
// connection, and reads with a timeout.
func TestDeadConnectionIsGivenUpInSpiteOfTimeouts(t *testing.T) {
	simScript(t, time.Second, 0, func(c *simThread) {
		require.NoError(t, c.read())
		c.w.links[0].muted = simkit.Never
		since, err := c.w.Now(), c.read()
		require.Error(t, err)
		for err != nil && c.w.Now()-since < time.Hour {
			err = c.read()
		}
		require.NoError(t, err)
		require.Less(t, c.w.Now()-since, silenceLeast+5*time.Second)
	})
}

// Goal: a call that a server has forgotten is made again although it answers all others. Method: one READ is passed over, and others go on.
func TestForgottenCallIsMadeAgain(t *testing.T) {
	simScript(t, 0, 0, func(c *simThread) {
		w := c.w
		w.passOver = 1
		done := c.readBehind()
		c.pause(time.Second)
		for since := w.Now(); w.Now()-since < 2*silenceMost; c.pause(10 * time.Second) {
			require.NoError(t, c.read())
			select {
			case err := <-done:
				require.NoError(t, err)
				return
			default:
			}
		}
		require.Fail(t, "it was not")
	})
}

// Goal: a node is closed in time although the server takes its time for every call. Method: data in places far from one another that a restart of the server has lost, so that it takes
// many calls to write it again, and a removal.
func TestRemovalBehindASlowServerIsBounded(t *testing.T) {
	simScript(t, 0, 9*time.Second, func(c *simThread) {
		w := c.w
		for i := range int64(300) {
			require.NoError(t, c.write(i%100*3*pageBytes%(1<<20)))
		}
		w.server.LoseUnstable(nfstest.LoseAll)
		w.root.Close()
		c.pause(0)
		since := w.Now()
		_ = w.graph.RemoveNodes()
		c.pause(0)
		require.LessOrEqual(t, w.Now()-since, closeMax+2*time.Second)
		require.Zero(t, w.file.held.pages.count)
	})
}

// Goal: a resize is not ended because a request that waits for its end is wanted no more. Method: a request that a section holds back is given up, and the disk, which has something to
// flush, resized.
func TestResizeIsNotOfARequestThatIsHeld(t *testing.T) {
	simScript(t, 0, 0, func(c *simThread) {
		w := c.w
		require.NoError(t, c.write(0))
		d, err := w.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "resize", Nodes: []*blockcore.Node{w.node}})
		require.NoError(t, err)
		c.pause(0)
		loop, ended := w.root.Context(), false
		loop.Post(func() {
			loop.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
				k := blockcore.Ticket{Op: "held", Client: &simClient{}}
				loop.Post(func() { w.root.Cancel(k.Client) })
				if w.root.Begin(t, &k) {
					w.root.End(t, &k)
				}
				ended = true
			}))
		})
		c.pause(time.Millisecond)
		require.NoError(t, w.graph.Update(context.Background(), "resize", func(tx *blockcore.Tx) error { return tx.Resize(d, w.node, 2<<20) }))
		c.pause(0)
		d.End()
		c.pause(time.Millisecond)
		require.True(t, ended)
	})
}

// Goal: a COMMIT that tells of a restart leaves nothing for done that was there before it was sent, whatever was written to the same pages since; nor does one that
// fails. Method: two writes to a page, a COMMIT of what the first one was, and how many pages have to be written again.
func TestWhatACommitDoesNotCover(t *testing.T) {
	part, whole := make([]byte, 100), make([]byte, pageBytes)
	for name, c := range map[string]struct {
		first, second   []byte
		runs            [3]uint64 // of the server: at the first write, the second, the COMMIT
		fails           bool
		stale, heldStay int
	}{
		"no restart":                           {part, part, [3]uint64{1, 1, 1}, false, 0, 1},
		"restart behind both":                  {part, part, [3]uint64{1, 1, 2}, false, 1, 1},
		"restart behind both, all of the page": {part, whole, [3]uint64{1, 1, 2}, false, 1, 1},
		"restart between them":                 {whole, whole, [3]uint64{1, 2, 2}, false, 1, 1},
		"restart between them, in part":        {whole, part, [3]uint64{1, 2, 2}, false, 1, 1},
		"nothing but the second, in time":      {nil, whole, [3]uint64{1, 1, 2}, false, 0, 1},
		"error":                                {part, part, [3]uint64{1, 1, 1}, true, 1, 1},
		"error, all of the page":               {whole, whole, [3]uint64{1, 1, 1}, true, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			pool := membuf.NewPool(1 << 20)
			buffers := pool.NewCache()
			h := &held{}
			h.put(buffers, 0, c.first, c.runs[0])
			upTo := h.seq
			h.put(buffers, 0, c.second, c.runs[1])
			if c.fails {
				h.doubt()
			} else {
				h.committed(buffers, upTo, c.runs[2])
			}
			require.Equal(t, c.stale, h.stale)
			require.Equal(t, c.heldStay, h.pages.count)
			h.committed(buffers, h.seq, c.runs[1])
			require.Equal(t, c.stale, h.stale, "it is stale until it is written again")
			h.dropAll(buffers)
			h.idle(buffers)
			buffers.Drain()
			require.NoError(t, pool.Close())
		})
	}
}

// Goal: a READ that was under way sees what was written before it, although the server had lost that and a stable write has taken its place meanwhile. Method: the
// reply of the READ, made while the data was lost, comes after the stable write.
func TestReadAcrossALossAndAStableWrite(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	before, after := random(1, pageBytes), random(2, pageBytes)
	r.write(0, before, 0)
	r.server.LoseUnstable(nfstest.LoseAll)
	hold := make(chan struct{})
	r.server.Inject(nfstest.Rule{Proc: nfstest.Read, Fault: nfstest.Fault{Hold: hold}})
	reading := r.begin(r.reading(0, append(append([]byte(nil), after...), make([]byte, pageBytes)...)))
	r.server.AwaitCalls(nfstest.Read, 1)
	r.write(0, after, blockcore.WriteFUA)
	close(hold)
	require.NoError(t, r.wait(reading))
}

// Goal: what lies between the end of a file and what was written behind it is zeroes, also when the server has lost that and the file is short again. Method: a file that
// does not end with a sector, a write at the end of its last one, and a loss.
func TestGapBehindTheEndAfterALoss(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	r.close()
	r.server.Put("/export/odd", nfstest.File{SizeBytes: 1000})
	var err error
	r.file, err = Open(optionsOf(t, r.server, "/export/odd"))
	require.NoError(t, err)
	r.write(1020, []byte("data"), 0)
	r.server.LoseUnstable(nfstest.LoseAll)
	want := make([]byte, 1024)
	copy(want[1020:], "data")
	r.check(0, want)
	require.NoError(t, r.flush())
	r.check(0, want)
	require.Equal(t, want, r.server.Stable("/export/odd"))
}
