package nfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

const (
	chaosBlocks     = 12
	chaosBlockBytes = 10000 // no multiple of a page: neighbours share one
	chaosRounds     = 12
)

// chaos is a file under guests that come and go and a server that does as well, and what each block may contain.
type chaos struct {
	*house
	rng *rand.Rand
	// may are the contents that a block can have: what was acknowledged last, and what was given up since.
	may [chaosBlocks][][]byte
}

// pendingWrite is a write that was begun in a round.
type pendingWrite struct {
	block int
	p     []byte
	who   guest
	done  chan error
}

// Goal: whoever is given up, and whatever the server does meanwhile, a block has what was acknowledged last, or something that was given up after that, and what a flush has
// acknowledged stays. Method: rounds from a seed, in which each block is written by one of four guests while the server is silent, loses connections, crashes or is just slow; some guests
// are given up, some writes are repeated in the same place at once; every block is read, and at the end the stable contents are compared.
func TestCancelRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for n := range uint64(6) {
		h := newHouse(t, nfstest.Options{Seed: seed + n, WriteBytesMax: 4096, ReadBytesMax: 8192}, func(o *Options) { o.Connections = 1 + int(n%3) })
		c := &chaos{house: h, rng: rand.New(rand.NewPCG(seed, n))}
		for b := range c.may {
			c.may[b] = [][]byte{make([]byte, chaosBlockBytes)}
		}
		for round := range chaosRounds {
			c.round()
			c.check(fmt.Sprintf("seed %d, file %d, round %d", seed, n, round))
		}
		h.root.Close()
		require.NoError(t, h.graph.RemoveNodes())
	}
	t.Logf("seed %d", seed)
}

// trouble has the server misbehave; what is returned ends that.
func (c *chaos) trouble() (over func()) {
	s := c.server
	switch c.rng.IntN(6) {
	case 0:
		s.Silence()
		return s.Speak
	case 1:
		s.Refuse()
		s.DropConnections(c.rng.IntN(2) == 0)
		return s.Accept
	case 2:
		s.Crash(nfstest.LoseSome)
		return s.Restart
	case 3:
		hold := make(chan struct{})
		s.Inject(nfstest.Rule{Proc: nfstest.Write, First: 1 + c.rng.IntN(5), Fault: nfstest.Fault{Before: func() { <-hold }}})
		return func() { close(hold) }
	case 4:
		hold := make(chan struct{})
		s.Inject(nfstest.Rule{Proc: nfstest.Write, First: 1 + c.rng.IntN(5), Count: 3, Fault: nfstest.Fault{Hold: hold}})
		return func() { close(hold) }
	}
	s.Inject(nfstest.Rule{Proc: nfstest.Write, First: 2, Count: 2, Fault: nfstest.Fault{Status: nfstest.Jukebox}})
	return func() {}
}

// round is one outage, with what is written in it.
func (c *chaos) round() {
	over := c.trouble()
	var all []pendingWrite
	for b := range c.may {
		all = append(all, c.begin(b))
	}
	flushing := c.flushes("g0")
	gone := map[guest]bool{}
	for _, who := range []guest{"g1", "g2", "g3"} {
		if c.rng.IntN(2) == 0 {
			c.cancel(who)
			gone[who] = true
		}
	}
	for _, w := range all {
		if gone[w.who] {
			c.conclude(w) // it ends during the outage
			all = append(all, c.begin(w.block))
		}
	}
	over()
	for _, w := range all {
		if !gone[w.who] {
			c.conclude(w)
		}
	}
	// Those that were begun again for somebody who had left are wanted: nobody has cancelled them.
	for _, w := range all[chaosBlocks:] {
		if gone[w.who] {
			c.conclude(w)
		}
	}
	require.NoError(c.t, c.wait(flushing))
	c.server.Heal()
}

func (c *chaos) begin(block int) pendingWrite {
	w := pendingWrite{block: block, who: guest(fmt.Sprintf("g%d", c.rng.IntN(4)))}
	w.p = random(c.rng.Uint64(), chaosBlockBytes)
	w.done = c.writes(w.who, int64(block)*chaosBlockBytes, w.p, blockcore.WriteFlags(c.rng.IntN(2))*blockcore.WriteFUA)
	return w
}

// conclude waits for a write, and notes what its block can have now.
func (c *chaos) conclude(w pendingWrite) {
	switch err := c.wait(w.done); err {
	case nil:
		c.may[w.block] = [][]byte{w.p}
	default:
		require.ErrorIs(c.t, err, blockcore.ErrCancelled)
		c.may[w.block] = append(c.may[w.block], w.p)
	}
}

// check reads every block, and compares what is stable after a flush.
func (c *chaos) check(when string) {
	for b := range c.may {
		done, got := c.reads("g0", int64(b)*chaosBlockBytes, chaosBlockBytes)
		require.NoError(c.t, c.wait(done), when)
		require.True(c.t, c.allows(b, <-got), "%s: block %d is read as nobody has written it", when, b)
	}
	c.atRest()
	require.NoError(c.t, c.wait(c.flushes("g0")), when)
	stable := c.server.Stable(diskPath)
	for b := range c.may {
		p := stable[b*chaosBlockBytes:][:chaosBlockBytes]
		require.True(c.t, c.allows(b, p), "%s: block %d is stored as nobody has written it", when, b)
		c.may[b] = [][]byte{bytes.Clone(p)}
	}
}

// allows reports whether a block can contain p. A write that was given up may have come in part: piece by piece of what one call takes, and of a page.
func (c *chaos) allows(block int, p []byte) bool {
	for at := 0; at < len(p); {
		n := 1
		found := false
		for _, may := range c.may[block] {
			k := 0
			for at+k < len(p) && p[at+k] == may[at+k] {
				k++
			}
			if k >= n {
				n, found = k, true
			}
		}
		if !found {
			return false
		}
		at += n
	}
	return true
}
