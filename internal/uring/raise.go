//go:build check

package uring

import "sync/atomic"

// RaiseTaskRun has the ring say that task work is due, as the kernel now and then does when there is none: for tests of who looks for work.
// From the owner.
func (r *Ring) RaiseTaskRun() { atomic.OrUint32(r.sq.kflags, sqTaskrun) }
