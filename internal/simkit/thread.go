package simkit

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Thread is a goroutine that parks until the scheduler chooses it.
type Thread struct {
	// Immutable.
	Name  string
	stage *Stage
	turn  chan struct{}

	// Guarded by threads.mu.
	rest time.Duration // not to be chosen before
}

// threads are those that are parked.
type threads struct {
	// Guarded by mu.
	mu     sync.Mutex
	parked []*Thread
}

// NewThread returns a Thread for a goroutine that is there, or will be.
func (s *Stage) NewThread(name string) *Thread {
	return &Thread{Name: name, stage: s, turn: make(chan struct{})}
}

// Park lets the scheduler decide when to go on, not before rest has passed. It returns false when ctx has ended before.
func (t *Thread) Park(ctx context.Context, rest time.Duration) bool {
	all := &t.stage.threads
	all.mu.Lock()
	t.rest = t.stage.Now() + rest
	all.parked = append(all.parked, t)
	all.mu.Unlock()
	select {
	case <-t.turn:
		return true
	case <-ctx.Done():
		all.remove(t)
		return false
	}
}

func (a *threads) remove(t *Thread) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parked = slices.DeleteFunc(a.parked, func(other *Thread) bool { return other == t })
}

// idle returns how long it takes until one of them may be chosen, most at the most.
func (a *threads) idle(now, most time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.parked {
		most = min(most, t.rest-now)
	}
	return most
}

// Eligible returns the Threads that may be chosen now, by name: the order in which they have parked may be that of the Go scheduler.
func (s *Stage) Eligible() []*Thread {
	all := &s.threads
	all.mu.Lock()
	defer all.mu.Unlock()
	slices.SortFunc(all.parked, func(a, b *Thread) int { return strings.Compare(a.Name, b.Name) })
	var list []*Thread
	for _, t := range all.parked {
		if t.rest <= s.Now() {
			list = append(list, t)
		}
	}
	return list
}

// Grant has a parked Thread go on.
func (s *Stage) Grant(t *Thread) {
	s.threads.remove(t)
	t.turn <- struct{}{}
}
