package nfs

import (
	"time"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/internal/imagelock"
)

// simVisitor is others who want the disk while it is open, one at a time. They do as QEMU does: they take their locks, look whether somebody is in the way, and give them back if
// so. It belongs to whoever runs.
type simVisitor struct {
	visits  int // that there may still be
	use     imagelock.Use
	looking bool // he has taken his locks and has not looked yet
	guest   bool // he has found nobody in his way, and stays
	owns    bool // so he has, as our locks were lost, and has the disk for good
	next    time.Duration
	seenAt  int64 // when he was in somebody's way last
}

const (
	// simLookMax is how long a visitor has his locks before he looks: less than it takes to be taken for somebody who stays.
	simLookMax = 250 * time.Millisecond
	// simVisitEach is the least between two visits: longer than the driver looks at its locks at once.
	simVisitEach = 15 * time.Second
)

// simUses are how visitors want to use the disk.
var simUses = []imagelock.Use{{}, {ShareRW: true}, {ReadOnly: true}, {ReadOnly: true, ShareRW: true}}

// visitorLock is his lock on one byte.
func visitorLock(offset int64) nfstest.Lock {
	return nfstest.Lock{Host: "visitor", Number: 8, Offset: uint64(offset), LengthBytes: 1}
}

// visitorEvents does what is due about visitors. None comes while the server gives no locks, or has been made to forget ours.
func (w *simWorld) visitorEvents() {
	v := &w.visitor
	if v.next > w.Now() {
		w.wake(v.next)
		return
	}
	switch {
	case v.looking:
		w.visitorLooks()
	case v.guest:
		w.visitorLeaves()
	case v.visits > 0 && w.up() && w.grace == 0 && w.file != nil && !w.closing && !w.foreign && !w.dropped:
		w.visitorComes()
	}
}

// visitorSoon has the next visitor come early: one who reads finds nobody in his way now.
func (w *simWorld) visitorSoon() {
	if v := &w.visitor; !v.looking && !v.guest {
		v.next = min(v.next, w.Now()+time.Duration(w.rng.Int64N(int64(w.between))))
	}
}

func (w *simWorld) visitorComes() {
	v := &w.visitor
	v.visits--
	v.use, v.looking = oneOf(w.rng, simUses...), true
	if w.readOnly && w.rng.IntN(2) == 0 {
		v.use = imagelock.Use{ReadOnly: true}
	}
	v.next = w.Now() + time.Duration(w.rng.Int64N(int64(simLookMax)))
	w.Log("a visitor takes his locks: %+v", v.use)
	for b := range v.use.Set().Bytes() {
		w.server.PutLock(simFile, visitorLock(b.Offset))
	}
}

// visitorLooks has him look who is in his way. INVARIANT: with our locks at the server he finds somebody, unless both of us may use the disk.
func (w *simWorld) visitorLooks() {
	v := &w.visitor
	v.looking = false
	beside := v.use.ReadOnly && (v.use.ShareRW || w.readOnly || w.narrowing)
	switch {
	case w.closing, w.inHisWay():
		w.Count("a visitor looks and goes")
		w.visitorLeaves()
	case beside:
		w.Log("the visitor stays, and reads")
		w.Count("a visitor reads")
		v.guest, v.next = true, w.Now()+max(w.someTime(), w.someTime(), w.someTime())
		w.came = w.came || len(w.ourLocks()) == 0 // a writer, even one that is about to be none, cannot have them back beside him
	case w.life() && !w.dropped:
		w.Fail("the disk is open, and somebody else gets it: %+v", v.use)
	default:
		w.Log("the visitor has the disk")
		w.Count("a visitor has the disk")
		w.foreign, w.came, v.owns = true, true, true
	}
}

// inHisWay reports whether a lock of ours excludes him.
func (w *simWorld) inHisWay() bool {
	for b := range w.visitor.use.Set().Against() {
		for _, l := range w.ourLocks() {
			if l.Offset == uint64(b.Offset) {
				return true
			}
		}
	}
	return false
}

// visitorLeaves has him give his locks back.
func (w *simWorld) visitorLeaves() {
	w.Log("the visitor goes")
	for b := range w.visitor.use.Set().Bytes() {
		w.server.GiveLockBack(simFile, visitorLock(b.Offset))
	}
	w.visitorGone()
}

// visitorGone notes that he has no locks.
func (w *simWorld) visitorGone() {
	v := &w.visitor
	v.looking, v.guest, v.owns, v.seenAt = false, false, false, w.Tick()
	v.next = w.Now() + simVisitEach + time.Duration(w.rng.Int64N(int64(time.Minute)))
}

// excludes reports whether a visitor that is there reads, and is not to be written beside.
func (v *simVisitor) excludes() bool { return v.guest && !v.use.ShareRW }

// visited reports whether a visitor has had locks since then.
func (w *simWorld) visited(since int64) bool {
	v := &w.visitor
	return v.looking || v.guest || w.came || v.seenAt >= since
}

// ourLocks are those at the server that are no visitor's, and nobody else's.
func (w *simWorld) ourLocks() (ours []nfstest.Lock) {
	for _, l := range w.server.Locks(simFile) {
		if l != simForeignLock && l.Host != visitorLock(0).Host {
			ours = append(ours, l)
		}
	}
	return ours
}
