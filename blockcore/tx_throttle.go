package blockcore

import "fmt"

// SetThrottle puts r under the limits of a group, or with nil under none. d covers r.
func (tx *Tx) SetThrottle(d *Drained, r *Root, group *ThrottleGroup) error {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, there := g.roots[r]; !there {
		return fmt.Errorf("%s is gone", r.name)
	}
	tx.demand(d, nil, r)
	before := r.throttle.Group()
	r.join(group)
	tx.onUndo(func() { r.join(before) })
	return nil
}

// join makes r a member of group instead of the one that it is in. r is drained: nobody waits for its turn, and its loop, which
// has been told so, looks at the member next when it is told that the section is over.
func (r *Root) join(group *ThrottleGroup) {
	if r.throttle.Group() == group {
		return
	}
	r.throttle.Leave()
	r.throttle = nil
	if group != nil {
		r.throttle = group.Join(r.Context(), r.name)
		r.throttle.Suspend()
	}
}

// Throttle returns the group that limits r, or nil. Safe from anywhere.
func (r *Root) Throttle() *ThrottleGroup {
	r.graph.mu.Lock()
	defer r.graph.mu.Unlock()
	return r.throttle.Group()
}
