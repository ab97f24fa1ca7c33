package nfs

import (
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// Bounds of what is waited for, each with its reason.
const (
	// gatherLeast is from how many calls of a file on replies are gathered: with fewer the server, or a client, may have nothing to do meanwhile.
	gatherLeast = 4
	// gatherShare of gatherOf calls of a connection: the server works on the others meanwhile. At depth 8 half of them cost a tenth more, and to wait for
	// all of them took a tenth of the rate.
	gatherShare = 3
	gatherOf    = 4
	// gatherFor is within what time they must be expected: a server that takes longer over a reply gains nothing by the wait.
	gatherFor = 400 * time.Microsecond
	// gatherMax is when the wait is over although they have not come.
	gatherMax = 2 * gatherFor
	// gatherBytesMax: the rest of what one system call receives is for what comes meanwhile.
	gatherBytesMax = inBytes / 2
	// gatherMemory: the newest value is so much of an average.
	gatherMemory = 8
)

// gatherer has the kernel announce replies by the handful. Each by itself would wake the loop, which would answer one client, who would
// send one request, which would wake the server; and all that for each of the calls that are in flight anyway. So when there are many, and
// replies come quickly, the socket is ready when some of them have come (SO_RCVLOWAT), or when gatherMax is over.
//
// Owned by the context.
type gatherer struct {
	reply    int           // bytes of a reply, lately
	interval time.Duration // between replies, lately, when there were enough calls
	since    time.Duration // of the last reply; 0 = there are no calls enough
	replies  int           // that the last receive has brought
	floor    int           // bytes that the socket waits for; 0 = as it was made
	timer    *blockcore.Timer
	lull     bool // the loop was told to sleep
	waiting  bool // timer is pending, since the last receive or later
	late     bool // timer is over, and nothing was received since
}

// came notes a reply of n bytes.
func (g *gatherer) came(n int) {
	g.replies++
	if g.reply == 0 {
		g.reply = n
	}
	g.reply += (n - g.reply) / gatherMemory
}

// pace notes how long what was received now took to come, with so many calls in flight.
func (g *gatherer) pace(now time.Duration, all int) {
	n := g.replies
	g.replies = 0
	if all < gatherLeast {
		g.since = 0
		return
	}
	if n == 0 {
		return
	}
	if g.since != 0 {
		took := (now - g.since) / time.Duration(n)
		if g.interval == 0 {
			g.interval = took
		}
		// One long wait, as for a COMMIT, does not say that all are.
		took = min(took, 2*g.interval+time.Microsecond)
		g.interval += (took - g.interval) / gatherMemory
	}
	g.since = now
}

// worth returns how many replies to wait for, of a connection that has own calls in flight, and all connections together all.
func (g *gatherer) worth(own, all int) int {
	if all < gatherLeast || g.interval <= 0 {
		return 1
	}
	n := min(own*gatherShare/gatherOf, int(gatherFor/g.interval))
	if g.reply > 0 {
		n = min(n, gatherBytesMax/g.reply)
	}
	return max(n, 1)
}

// gather waits for replies, for several if that is worth it.
func (c *conn) gather() {
	g := &c.gatherer
	if c.more {
		c.watcher.Heat() // nothing announces what is left
		return
	}
	if g.late {
		c.watcher.ArmIn() // the first one that comes, or is there, is waited for
		return
	}
	n := 1
	if c.f.largeReads == 0 {
		n = g.worth(c.outstanding, c.f.outstanding)
	}
	if n == 1 {
		c.ungather()
		switch {
		case c.outstanding == 0:
			c.watcher.Cool()
		case c.dozes():
			c.f.ctx.Doze()
			c.watcher.ArmIn()
		default:
			c.watcher.Heat()
		}
		return
	}
	// As long as it is about right the socket is not told.
	if want := n * g.reply; g.floor > want+want/2 || g.floor < want-want/2 {
		c.setFloor(want)
	}
	if !g.lull {
		g.lull = true
		c.f.ctx.BeginLull()
	}
	c.watcher.ArmIn()
	if g.timer == nil {
		g.timer = c.f.ctx.NewTimer(c.gathered)
	}
	if !g.waiting {
		g.waiting = true
		g.timer.Reset(gatherMax)
	}
}

// dozes reports whether the loop sleeps until there is a reply, although it waits for one only. It looks for those to READs, which take less time than it looks: that
// answers a client at depth 1 nearly twice as fast. WRITE and COMMIT take longer. Half of the replies of a WRITE came when it had just given up, so looking made a client
// hardly faster, and cost half as much again as sleeping.
func (c *conn) dozes() bool { return c.f.reads == 0 }

// gathered has the kernel announce what has come, when less has than was expected. What it has announced by then is not announced again, so nobody may
// read here.
func (c *conn) gathered() {
	c.waiting, c.late = false, true
	c.setFloor(1)
}

// ungather has the kernel announce each reply.
func (c *conn) ungather() {
	g := &c.gatherer
	if g.waiting {
		g.waiting = false
		g.timer.Stop()
	}
	g.late = false
	if g.lull {
		g.lull = false
		c.f.ctx.EndLull()
	}
	if g.floor > 1 && c.fd >= 0 {
		c.setFloor(1)
	}
}

// setFloor has the socket be ready when so many bytes have come, or when it has ended. If it cannot be set it is as it was.
func (c *conn) setFloor(n int) {
	c.gatherer.floor = n
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
}
