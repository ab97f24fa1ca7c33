package raw

import (
	"slices"

	"nbd-dataplane/blockcore"
)

// syncs holds back the success of a sync until every other one that ran beside it has returned too.
//
// The kernel reports a lost page to whichever sync of the file description asks first. So of two that overlap one
// may succeed although the data it promises is lost, and the error is with the other, which has perhaps not
// been resumed yet.
//
// INVARIANT: a sync is acknowledged only after all kernel calls that overlapped its own have returned and have
// recorded their failures. It waits for kernel calls, never for acknowledgements, so waiting has no cycles.
type syncs struct {
	// Owned by the context.
	running []*syncing // kernel calls in progress
}

// syncing is one sync whose kernel call is in progress, or was when somebody began to wait for it.
type syncing struct {
	// Owned by the context.
	returned bool
	waiters  blockcore.WaitQueue
}

func (s *syncs) begin() *syncing {
	y := &syncing{}
	s.running = append(s.running, y)
	return y
}

// end notes that the kernel call of y has returned, whatever it returned.
func (s *syncs) end(y *syncing) {
	y.returned = true
	s.running = slices.DeleteFunc(s.running, func(o *syncing) bool { return o == y })
	y.waiters.WakeAll()
}

// settle waits until all kernel calls that are in progress now have returned.
func (s *syncs) settle(t *blockcore.Task) {
	for _, y := range slices.Clone(s.running) {
		for !y.returned {
			t.Wait(&y.waiters)
		}
	}
}
