package nfs

import (
	"context"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// The locks of a file follow what it is opened for (reopen.go): while it is only read others may do as beside any reader. What it is to have is taken before
// the change is made, which fails if it cannot be had; what it has no longer is given back behind it, by the goroutine that looks after the locks, so that nobody waits for a lock
// manager that does not answer.

// setFor returns what is locked for reading, or as the file was opened.
func (l *fileLocks) setFor(readOnly bool) imagelock.Set {
	if readOnly {
		return l.reads
	}
	return l.writes
}

// widen takes what a file has to have that is opened otherwise, besides what it has. It blocks. There may be no locks.
func (l *fileLocks) widen(readOnly bool) error {
	if l == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, confirmMax)
	defer cancel()
	return l.inTurn(ctx, func(k *locker, h *lockHoldings) error { return l.widenBy(k, h, l.setFor(readOnly)) })
}

// widenBy is widen in its turn. If it cannot have all it gives back what it has taken.
func (l *fileLocks) widenBy(k *locker, h *lockHoldings, to imagelock.Set) error {
	before := l.wants(to.With)
	l.shrink(h) // but for what is of use again
	more := to.Without(h.set)
	if more == (imagelock.Set{}) {
		return nil
	}
	h.surplus = h.surplus.Without(more)
	denied, err := k.takeAll(more, false)
	var conflict *imagelock.ConflictError
	if err == nil {
		conflict, _, err = k.look(l.url, to)
	}
	if err == nil {
		err = l.inTheWay(conflict, denied)
	}
	if err == nil {
		h.set = h.set.With(to)
		return nil
	}
	l.wants(func(imagelock.Set) imagelock.Set { return before })
	h.surplus = h.surplus.With(more)
	if l.giveSurplus(k, h) != nil {
		l.lookSoon()
	}
	return err
}

// wants changes what is of use, and returns what was.
func (l *fileLocks) wants(change func(imagelock.Set) imagelock.Set) (before imagelock.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.want
	l.want = change(before)
	return before
}

// narrow has what is not of use any more given back. It does not wait for that. There may be no locks.
func (l *fileLocks) narrow(readOnly bool) {
	if l == nil {
		return
	}
	l.wants(func(imagelock.Set) imagelock.Set { return l.setFor(readOnly) })
	l.lookSoon()
}

// shrink notes what is of no use any more, in its turn.
func (l *fileLocks) shrink(h *lockHoldings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	more := h.set.Without(l.want)
	h.surplus, h.set = h.surplus.With(more), h.set.Without(more)
}

// giveSurplus gives back what is of no use any more, in its turn.
func (l *fileLocks) giveSurplus(k *locker, h *lockHoldings) error {
	for b := range h.surplus.Bytes() {
		if err := k.unlockRange(l.owner, uint64(b.Offset), 1); err != nil {
			return err
		}
	}
	h.surplus = imagelock.Set{}
	return nil
}

// lookSoon has the goroutine of ours look at the locks at once.
func (l *fileLocks) lookSoon() {
	select {
	case l.soon <- struct{}{}:
	default:
	}
}

var _ blockcore.AccessChanger = (*File)(nil)

// OptionsFor returns the options that hold, with the right to write or without. It implements blockcore.AccessChanger.
func (f *File) OptionsFor(readOnly bool) any {
	if f.nlm == nil || f.readOnly {
		return nil
	}
	return Changes{Timeout: f.Timeout(), ReadOnly: readOnly}
}
