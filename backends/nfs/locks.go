package nfs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/imagelock"
)

// Bounds of what is done about locks once they are had, each with its reason.
const (
	// confirmEach is how often it is made sure that they are still there. Servers give those that had locks 45 s and more after a restart.
	confirmEach = 20 * time.Second
	// confirmAgain is how soon that is tried again when the lock manager could not be asked.
	confirmAgain = 2 * time.Second
	// confirmMax bounds one such look.
	confirmMax = 10 * time.Second
	// unlockMax is how long the end of a file may wait for a lock manager, unlockSoon the same where the server does not answer or nobody wants to wait.
	unlockMax  = 2 * time.Second
	unlockSoon = 200 * time.Millisecond
	// lossTries and lossEach: who opens a file takes his locks first and then sees that he may not, so for a moment he is in the way of those that may.
	lossTries = 5
	lossEach  = 300 * time.Millisecond
)

// fileLocks are the image locks of a file that is open. They are taken when it is opened, confirmed before calls are sent over a connection that was made
// anew and every now and then, and given back at its end.
//
//	acquire --> held <--> confirm: the server was restarted, and the locks are reclaimed
//	            |  ^ |       |
//	            |  | |       +--> lost: somebody else has the file. Nothing is written any more
//	            |  | +--> release
//	            v  |
//	       narrow  widen: the file is read, or written again
//
// All of it blocks, off the loop.
type fileLocks struct {
	// Immutable.
	url    string
	dialer *dialer
	port   *lockPort
	handle wire.Handle
	writes imagelock.Set // of the file as it was opened
	reads  imagelock.Set // of one that is only read
	owner  *wire.LockOwner
	note   *heldNote
	onLoss func() // called once by a goroutine of ours; may be called again until told is true
	each   time.Duration
	ctx    context.Context // of what goes on while the file is open
	cancel context.CancelFunc
	turn   chan *lockHoldings // has what is had, for who makes calls: one at a time
	soon   chan struct{}      // has the goroutine of ours look at once
	work   sync.WaitGroup

	// Guarded by mu.
	mu   sync.Mutex
	want imagelock.Set // what is of use

	// Safe from anywhere.
	lost atomic.Pointer[LockLostError]
	told atomic.Bool // the file knows that they are lost
}

// locks returns the locks of a disk that is opened with o: they are those of a file on this host.
func (o *Options) locks() imagelock.Set {
	return imagelock.Use{ReadOnly: o.ReadOnly, ShareRW: o.ShareRW, Grows: o.Grows}.Set()
}

// readerLocks returns the locks of the same disk where it is only read.
func (o *Options) readerLocks() imagelock.Set {
	reads := *o
	reads.ReadOnly = true
	return reads.locks()
}

// lockHoldings is what a file has at the server. Whoever has taken it out of fileLocks.turn owns it.
type lockHoldings struct {
	set     imagelock.Set
	surplus imagelock.Set // what is to be given back
}

// newTurn returns a turn that nobody has yet.
func newTurn(set imagelock.Set) chan *lockHoldings {
	turn := make(chan *lockHoldings, 1)
	turn <- &lockHoldings{set: set}
	return turn
}

// locking is what is being done while locks are taken, for errors.
const locking = "lock the file"

// acquireLocks takes the locks of a set. None and no error: there are to be none, or the server has none and that will do.
func (w *walker) acquireLocks(h wire.Handle, set imagelock.Set) (*fileLocks, error) {
	o := w.o
	if o.Locking == imagelock.Off || o.ForceShare {
		return nil, nil
	}
	w.doing = locking
	l := &fileLocks{
		url: o.URL(), dialer: w.dialer, port: &lockPort{given: o.LockPort}, handle: h, want: set, writes: set, reads: o.readerLocks(), each: confirmEach,
		turn: newTurn(set), soon: make(chan struct{}, 1),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	err := l.acquire(w.ctx, o)
	switch {
	case err == nil:
		return l, nil
	case !errors.Is(err, errNoLocks) || o.Locking == imagelock.On:
		l.cancel()
		return nil, err
	case !o.ReadOnly:
		o.warn("%s: no lock is taken at the NFS server; see to it that nobody else writes to the file: %v", o.URL(), err)
	}
	l.cancel()
	return nil, nil
}

// begin connects to the lock manager.
func (l *fileLocks) begin(ctx context.Context) (*locker, error) {
	c, err := l.dialer.connectLocks(ctx, l.port)
	if err != nil {
		return nil, err
	}
	return &locker{ctx: ctx, client: c, owner: l.owner, handle: l.handle}, nil
}

// acquire takes the locks, after what dead processes of this host have left. If it cannot have them all it keeps none.
func (l *fileLocks) acquire(ctx context.Context, o *Options) (err error) {
	k, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer k.client.close()
	if l.owner, l.note, err = newOwner(o.LockNotes, l.url, l.handle); err != nil {
		o.warn("%s: its lock cannot be noted down (%v): if this process is killed, the lock stays at the server", l.url, err)
	}
	k.owner = l.owner
	defer func() {
		if err != nil {
			l.giveBack(k)
		}
	}()
	if o.LockNotes != "" {
		k.clearAbandoned(o.LockNotes)
	}
	denied, err := k.takeAll(l.writes, false)
	if err != nil {
		return err
	}
	conflict, known, err := k.look(l.url, l.writes)
	for err == nil && !known {
		if err = k.rest(graceEach, wire.LockGrace); err == nil {
			conflict, known, err = k.look(l.url, l.writes)
		}
	}
	if err != nil {
		return err
	}
	return l.inTheWay(conflict, denied)
}

// inTheWay returns the error of who is in the way, or has what was denied; nil = nobody.
func (l *fileLocks) inTheWay(conflict *imagelock.ConflictError, denied *imagelock.Byte) error {
	switch {
	case conflict != nil:
		return conflict
	case denied != nil:
		return l.lockedWhole(denied)
	}
	return nil
}

// giveBack gives all back. If that is not certain, the note says that it is left to whoever comes next.
func (l *fileLocks) giveBack(k *locker) {
	if err := k.unlock(l.owner); err == nil || errors.Is(err, errNoLocks) {
		l.note.remove()
		return
	}
	l.note.leave()
}

// clearAbandoned gives back the locks of processes of this host that are gone. What cannot be given back is in the way, and told of then.
func (k *locker) clearAbandoned(dir string) {
	notes, owners := abandoned(dir, k.handle)
	for i, n := range notes {
		if k.unlock(owners[i]) == nil {
			n.remove()
		} else {
			n.leave()
		}
	}
}

// confirm makes sure that the locks are there: it takes them again, as the server may have been restarted, and looks whether somebody is in the way. An
// error is that this could not be found out, or a LockLostError.
func (l *fileLocks) confirm(ctx context.Context) error {
	return l.inTurn(ctx, l.confirmBy)
}

// inTurn runs fn with a connection to the lock manager, while nobody else does, unless the locks are lost.
func (l *fileLocks) inTurn(ctx context.Context, fn func(k *locker, h *lockHoldings) error) error {
	select {
	case h := <-l.turn:
		defer func() { l.turn <- h }()
		return l.withLocker(ctx, func(k *locker) error { return fn(k, h) })
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *fileLocks) withLocker(ctx context.Context, fn func(k *locker) error) error {
	if lost := l.lost.Load(); lost != nil {
		return lost
	}
	k, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer k.client.close()
	return fn(k)
}

// confirmBy is confirm in its turn.
func (l *fileLocks) confirmBy(k *locker, h *lockHoldings) error {
	l.shrink(h)
	if err := l.giveSurplus(k, h); err != nil {
		return err
	}
	denied, err := k.takeAll(h.set, true)
	if err != nil {
		return err
	}
	conflict, err := l.lookAgain(k, h.set)
	if err != nil {
		return err
	}
	if err = l.inTheWay(conflict, denied); err == nil {
		return nil
	}
	lost := &LockLostError{err}
	l.lost.Store(lost)
	_ = k.unlock(l.owner) // so that ours are in nobody's way; the note says the same
	return lost
}

// isLocked reports whether an error is that somebody else has the file.
func isLocked(err error) bool {
	_, is := errors.AsType[*imagelock.ConflictError](err)
	return is
}

// lockedWhole is the conflict with somebody who has a byte of ours for himself alone, which no user of images has.
func (l *fileLocks) lockedWhole(b *imagelock.Byte) error {
	return &imagelock.ConflictError{Image: l.url, Permission: b.Permission, Denied: !b.Denies, Holder: "somebody who locks all of it"}
}

// lookAgain returns who is in the way and stays there. A server that does not say in its time of grace will be asked the next time; nobody can have got a new
// lock meanwhile.
func (l *fileLocks) lookAgain(k *locker, set imagelock.Set) (conflict *imagelock.ConflictError, err error) {
	for range lossTries {
		conflict, _, err = k.look(l.url, set)
		if err != nil || conflict == nil {
			return nil, err
		}
		if err := k.rest(lossEach, wire.LockDenied); err != nil {
			return nil, err
		}
	}
	return conflict, nil
}

// watchLoop confirms the locks while the file is open, so that those are reclaimed that nobody has used since the server's restart.
func (l *fileLocks) watchLoop() {
	defer l.work.Done()
	for wait := l.each; !l.told.Load(); {
		select {
		case <-l.ctx.Done():
			return
		case <-l.soon:
		case <-time.After(wait):
		}
		ctx, cancel := context.WithTimeout(l.ctx, confirmMax)
		err := l.confirm(ctx)
		cancel()
		wait = l.each
		if err != nil {
			wait = min(wait, confirmAgain)
		}
		if _, lost := errors.AsType[*LockLostError](err); lost {
			l.onLoss()
		}
	}
}

// watch begins to look after the locks. onLoss is called if they are lost, until told is set.
func (l *fileLocks) watch(onLoss func()) {
	l.onLoss = onLoss
	l.work.Add(1)
	go l.watchLoop()
}

// release gives the locks back, if the lock manager answers in that time. It waits for our goroutine. There may be none.
func (l *fileLocks) release(patience time.Duration) {
	if l == nil {
		return
	}
	l.cancel()
	l.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	k, err := l.begin(ctx)
	if err != nil {
		l.note.leave()
		return
	}
	defer k.client.close()
	l.giveBack(k)
}

// errorOf returns why nothing may be written any more; nil = it may. Safe from anywhere, also for a file without locks.
func (l *fileLocks) errorOf() error {
	if l == nil {
		return nil
	}
	if lost := l.lost.Load(); lost != nil {
		return lost
	}
	return nil
}
