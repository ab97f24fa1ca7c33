package nfs

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// sectorBytes is the unit that sizes are rounded up to, as qemu-nbd does. What lies behind the end of the file reads as zeroes.
const sectorBytes = 512

// File is a file on an NFS server.
//
// Analogous to QEMU's nfs driver.
type File struct {
	// Immutable.
	url      string
	dialer   *dialer
	handle   wire.Handle
	readMax  int
	writeMax int
	fileMax  int64
	used     int64 // space that it took when it was opened
	readOnly bool
	onHealth func(Health)
	noFlush  bool
	through  bool // every write has FUA
	spread   bool // there are to be all connections
	guard    func(block0 []byte) error
	align    int64
	nlm      *fileLocks // nil = none
	heldMax  int64      // bytes that may be held

	// Owned by the context.
	ctx         *blockcore.AioContext // nil = on none at the moment
	node        *blockcore.Node       // nil = in no graph
	closeBy     time.Duration         // when the last flush has to have ended; 0 = the node is not being closed
	conns       []*conn
	outstanding int   // calls that they have
	lastConn    *conn // that a call was given to; nil = none was
	calls       callTable
	reads       int // requests that wait for READs
	largeReads  int // those of them that want much data
	watch       *blockcore.Timer
	sick        bool
	lapse       error         // why a request has timed out that the server did not answer although it answered others; nil = none has lately
	lapsed      time.Duration // when one did last, or a call was put off since
	probing     *group        // of the call that finds out whether the server is back; nil = none is under way
	refusing    bool          // the locks are lost
	onlyRead    bool          // it is locked as one that is read
	eof         int64         // the file's length; Size is rounded up
	firm        int64         // what of it no restart of the server takes back; between the two are writes that are held, and zeroes
	locks       blockcore.RangeLocks
	held        held
	durable     uint64              // all that was held up to here is on stable storage
	committing  bool                // a COMMIT, or what goes before it, is under way
	doubted     uint64              // calls made up to this one may have brought data that a COMMIT that failed has dropped
	unsettled   bool                // the last one failed
	ahead       bool                // one is being made before anybody has asked
	settlers    blockcore.WaitQueue // wait for the end of a COMMIT
	reserved    int64               // bytes that will be held when the WRITEs in flight are answered
	roomers     blockcore.WaitQueue // wait for some of them
	extending   bool
	extenders   blockcore.WaitQueue
	limbos      int   // groups in limbo
	limboBytes  int64 // of their data
	resizing    int   // SETATTRs among them

	// Safe from anywhere.
	size     atomic.Int64
	timeout  atomic.Int64                         // of a call, in nanoseconds; 0 = none
	loop     atomic.Pointer[blockcore.AioContext] // ctx, for who tells it something
	health   atomic.Pointer[Health]
	counters counters
	dialing  sync.WaitGroup // goroutines that connect
}

// The abilities of a File. There is no map: NFS version 3 cannot tell holes from data.
var (
	_ blockcore.Driver          = (*File)(nil)
	_ blockcore.Writer          = (*File)(nil)
	_ blockcore.Flusher         = (*File)(nil)
	_ blockcore.Zeroer          = (*File)(nil)
	_ blockcore.Resizer         = (*File)(nil)
	_ blockcore.Extender        = (*File)(nil)
	_ blockcore.Limiter         = (*File)(nil)
	_ blockcore.Featurer        = (*File)(nil)
	_ blockcore.Adopter         = (*File)(nil)
	_ blockcore.ContextFollower = (*File)(nil)
)

// newFile makes a File of what was found out, with a socket that is connected.
func newFile(o *Options, d *dialer, found wire.Found, sizes wire.Sizes, fd int) *File {
	f := &File{
		url: o.URL(), dialer: d, handle: found.Handle, readMax: int(sizes.ReadMax), writeMax: int(sizes.WriteMax),
		fileMax: int64(min(sizes.FileMax, 1<<63-1)), readOnly: o.ReadOnly, onHealth: o.OnHealth,
		noFlush: o.NoFlush, spread: o.Connections > 1, through: o.Writethrough, guard: o.Guard, align: 1,
		eof: int64(found.Attributes.SizeBytes), used: int64(min(found.Attributes.UsedBytes, 1<<63-1)), heldMax: heldBytesMax,
	}
	if f.guard != nil {
		f.align = sectorBytes
	}
	f.firm = f.eof
	f.size.Store(roundUp(f.eof))
	f.timeout.Store(int64(o.Timeout))
	f.health.Store(&Health{URL: f.url, OK: true, Since: time.Now()})
	for range cmp.Or(o.Connections, connectionsDefault) {
		c := &conn{f: f, fd: -1, silence: silenceLeast}
		c.parser.reset()
		f.conns = append(f.conns, c)
	}
	f.conns[0].fd, f.conns[0].proven = fd, true
	return f
}

func roundUp(n int64) int64 { return (n + sectorBytes - 1) &^ (sectorBytes - 1) }

// Size returns the length. Safe from anywhere.
func (f *File) Size() int64 { return f.size.Load() }

// UsedBytes returns how much space the file took at the server when it was opened. Safe from anywhere.
func (f *File) UsedBytes() int64 { return f.used }

// Path returns the name by which the file can be opened again. Safe from anywhere.
func (f *File) Path() string { return f.url }

// Limits returns that anything goes, unless the first sector is guarded. Safe from anywhere.
func (f *File) Limits() blockcore.Limits {
	return blockcore.Limits{Align: f.align, Preferred: pageBytes}
}

// Features returns whether the file can be written. Zeroing is not fast. Safe from anywhere.
func (f *File) Features() blockcore.Features { return blockcore.Features{ReadOnly: f.readOnly} }

// SetNode takes the node that the file has become.
func (f *File) SetNode(n *blockcore.Node) {
	f.node = n
	f.loop.Store(n.Context())
}

// enter sees to it that everything is on the loop of t.
func (f *File) enter(t *blockcore.Task) {
	if f.ctx == t.Context() {
		return
	}
	f.arrive(t.Context())
}

// Detach leaves the loop. The node is drained, so no call is in flight but those in limbo.
func (f *File) Detach() {
	if f.ctx == nil {
		return
	}
	if f.watch != nil {
		f.watch.Stop()
		f.watch = nil
	}
	f.suspendLimbo()
	for _, c := range f.conns {
		c.leave()
	}
	f.held.idle(f.ctx.Buffers())
	f.ctx = nil
}

// Attach goes on with what is in limbo. Otherwise the first request on the new loop takes up what is needed.
func (f *File) Attach(ctx *blockcore.AioContext) {
	f.loop.Store(ctx)
	if f.limbos > 0 || f.sick && !f.refusing {
		f.arrive(ctx)
		f.keepWatch() // a file that is not well is looked after also if nobody uses it
	}
}

// arrive brings the connections to a loop.
func (f *File) arrive(ctx *blockcore.AioContext) {
	f.ctx = ctx
	f.loop.Store(ctx)
	for _, c := range f.conns {
		c.arrive()
	}
	if f.limbos > 0 {
		f.resumeLimbo()
	}
}

// Close closes the connections, whatever the server is doing. What was not flushed may be lost with it.
func (f *File) Close(t *blockcore.Task) error {
	f.enter(t)
	f.held.dropAll(t.Buffers())
	f.Detach()
	for _, c := range f.conns {
		c.shut()
	}
	patience := unlockMax
	if !f.Health().OK || f.unwanted(t) {
		patience = unlockSoon
	}
	return t.Block(func() error {
		f.dialing.Wait()
		f.nlm.release(patience)
		return nil
	})
}

// fail adds to an error what was being done, and where, and what may help.
func (f *File) fail(doing string, off int64, err error) error {
	return advise(fmt.Errorf("%s %s at %#x: %w", doing, f.url, off, err))
}

// advise adds what may help.
func advise(err error) error {
	if remedy := remedyInUse(err); remedy != "" {
		return fmt.Errorf("%w; %s", err, remedy)
	}
	return err
}

// remedyInUse is what may help where the server refuses something of a file that it has let be opened.
func remedyInUse(err error) string {
	switch {
	case errors.Is(err, syscall.ESTALE):
		return "it was deleted or replaced at the server: see what is there by that name, and open it anew"
	case errors.Is(err, syscall.EROFS):
		return "let the server export it for writing again"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "the server does not allow any more what it did: check the mode of the file and the list of exports"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room at the server, and try again"
	}
	return ""
}
