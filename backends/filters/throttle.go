package filters

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/blockcore"
)

// ThrottleOptions configure a Throttle.
type ThrottleOptions struct {
	// Group has the limits, shared with its other members.
	Group *blockcore.ThrottleGroup
}

func (o ThrottleOptions) check() error {
	if o.Group == nil {
		return errors.New("Please specify a throttle group")
	}
	return nil
}

// Throttle holds requests up as the limits of a group demand, reads and writes apart; zeroing and discarding are writes. In a drained
// section there are no limits.
//
// Analogous to QEMU's throttle driver.
type Throttle struct {
	blockcore.Filter

	// Changed only by a Tx.
	group  *blockcore.ThrottleGroup
	node   *blockcore.Node
	member *blockcore.ThrottleMember // nil = in no graph yet
}

// The abilities of a Throttle besides those of a Filter.
var (
	_ blockcore.Adopter         = (*Throttle)(nil)
	_ blockcore.Quiescer        = (*Throttle)(nil)
	_ blockcore.ContextFollower = (*Throttle)(nil)
	_ blockcore.Reopener        = (*Throttle)(nil)
	_ blockcore.Compressor      = (*Throttle)(nil)
)

// NewThrottle returns a throttle, which joins the group when it is put into a graph.
func NewThrottle(o ThrottleOptions) (*Throttle, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return &Throttle{group: o.Group}, nil
}

// Features returns those of the child. Safe from anywhere.
func (f *Throttle) Features() blockcore.Features {
	is := f.Filter.Features()
	is.Independent = true
	return is
}

// Member returns what stands for the throttle in its group. It changes only while the node is drained.
func (f *Throttle) Member() *blockcore.ThrottleMember { return f.member }

// SetNode joins the group. A driver that was not accepted into a graph may be offered again.
func (f *Throttle) SetNode(n *blockcore.Node) {
	f.leave()
	f.node = n
	f.member = f.group.Join(n.Context(), n.Name())
}

func (f *Throttle) leave() {
	f.member.Leave()
	f.member = nil
}

// Quiesce takes the limits off: who waits goes on at once.
func (f *Throttle) Quiesce() { f.member.Suspend() }

// Resume puts them on again.
func (f *Throttle) Resume() { f.member.Resume() }

// Detach has nothing to do: nobody waits.
func (f *Throttle) Detach() {}

// Attach follows the node. One that nobody uses moves without a drained section, and its limits are still on.
func (f *Throttle) Attach(ctx *blockcore.AioContext) {
	f.member.Suspend()
	f.member.Move(ctx)
	f.member.Resume()
}

// PrepareReopen joins another group. options are ThrottleOptions.
func (f *Throttle) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(*blockcore.Task), err error) {
	o, ok := options.(ThrottleOptions)
	if !ok {
		return nil, nil, fmt.Errorf("%T are no options of a throttle: %w", options, syscall.EINVAL)
	}
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	group, member := f.group, f.member
	f.group, f.member = o.Group, o.Group.Join(t.Context(), f.node.Name())
	f.member.Suspend() // by the section that this happens in
	return func(*blockcore.Task) { member.Leave() }, func(*blockcore.Task) {
		f.leave()
		f.group, f.member = group, member
	}, nil
}

// ReadAt reads when the limits let it.
func (f *Throttle) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	f.member.Admit(t, blockcore.ThrottleRead, int64(len(p)))
	return f.Filter.ReadAt(t, p, off)
}

// WriteAt writes when the limits let it.
func (f *Throttle) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	f.member.Admit(t, blockcore.ThrottleWrite, int64(len(p)))
	return f.Filter.WriteAt(t, p, off, flags)
}

// WriteZeroes zeroes when the limits for writing let it.
func (f *Throttle) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	f.member.Admit(t, blockcore.ThrottleWrite, r.Length)
	return f.Filter.WriteZeroes(t, r, flags)
}

// Discard discards when the limits for writing let it.
func (f *Throttle) Discard(t *blockcore.Task, r blockcore.Range) error {
	f.member.Admit(t, blockcore.ThrottleWrite, r.Length)
	return f.Filter.Discard(t, r)
}

// Prefetch prefetches when the limits for reading let it.
func (f *Throttle) Prefetch(t *blockcore.Task, r blockcore.Range) error {
	f.member.Admit(t, blockcore.ThrottleRead, r.Length)
	return f.Filter.Prefetch(t, r)
}

// CachedFile knows no place: what is read there would pass the limits by.
func (f *Throttle) CachedFile(blockcore.Range) (fd int, off int64, ok bool) { return 0, 0, false }

// Close leaves the group.
func (f *Throttle) Close(*blockcore.Task) error {
	f.leave()
	return nil
}

// CompressedUnit is the child's. Safe from anywhere.
func (f *Throttle) CompressedUnit() int64 { return compressedUnit(&f.Filter) }
