package sim

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/blockcore"
)

// innerDriver is what the real drivers have in common that stand on another node.
type innerDriver interface {
	blockcore.Driver
	blockcore.Writer
	blockcore.Flusher
	blockcore.Zeroer
	blockcore.Discarder
	blockcore.Resizer
	blockcore.Parent
	blockcore.ChildChecker
	blockcore.Limiter
	blockcore.Featurer
}

// wrapped is a driver of the program with the simulation's checks around it.
type wrapped struct {
	layer

	// Immutable.
	inner innerDriver
}

// SetNode implements blockcore.Adopter.
func (f *wrapped) SetNode(n *blockcore.Node) {
	f.layer.SetNode(n)
	if a, ok := f.inner.(blockcore.Adopter); ok {
		a.SetNode(n)
	}
}

// SetChild implements blockcore.Parent.
func (f *wrapped) SetChild(role blockcore.Role, e *blockcore.Edge) {
	if f.running > 0 {
		f.w.Fail("node %s gets another child with %d requests in it", f.name, f.running)
	}
	if role == blockcore.RoleBacking {
		f.backing = e
	} else {
		f.file = e
	}
	f.inner.SetChild(role, e)
}

// CheckChildren implements blockcore.ChildChecker.
func (f *wrapped) CheckChildren() error { return f.inner.CheckChildren() }

// ChildPermissions implements blockcore.ChildPermitter, with its default.
func (f *wrapped) ChildPermissions(role blockcore.Role, perm, shared blockcore.Permissions) (blockcore.Permissions, blockcore.Permissions) {
	if p, ok := f.inner.(blockcore.ChildPermitter); ok {
		return p.ChildPermissions(role, perm, shared)
	}
	return perm, shared
}

// Size implements blockcore.Driver.
func (f *wrapped) Size() int64 { return f.inner.Size() }

// Limits implements blockcore.Limiter.
func (f *wrapped) Limits() blockcore.Limits { return f.inner.Limits() }

// Features implements blockcore.Featurer.
func (f *wrapped) Features() blockcore.Features { return f.inner.Features() }

// Quiesce implements blockcore.Quiescer.
func (f *wrapped) Quiesce() {
	f.layer.Quiesce()
	if q, ok := f.inner.(blockcore.Quiescer); ok {
		q.Quiesce()
	}
}

// Resume implements blockcore.Quiescer.
func (f *wrapped) Resume() {
	if q, ok := f.inner.(blockcore.Quiescer); ok {
		q.Resume()
	}
	f.layer.Resume()
}

// Detach implements blockcore.ContextFollower.
func (f *wrapped) Detach() {
	if c, ok := f.inner.(blockcore.ContextFollower); ok {
		c.Detach()
	}
	f.layer.Detach()
}

// Attach implements blockcore.ContextFollower.
func (f *wrapped) Attach(ctx *blockcore.AioContext) {
	f.layer.Attach(ctx)
	if c, ok := f.inner.(blockcore.ContextFollower); ok {
		c.Attach(ctx)
	}
}

// Close implements blockcore.Driver.
func (f *wrapped) Close(t *blockcore.Task) error {
	return errors.Join(f.layer.Close(t), f.inner.Close(t))
}

// told makes what the filter itself injects known to the simulation.
func (f *wrapped) told(err error) error {
	if err == nil || errors.Is(err, errInjected) || !errors.Is(err, syscall.EIO) {
		return err
	}
	f.w.Count("injected in the graph")
	return fmt.Errorf("%w: %w", errInjected, err)
}

// ReadAt implements blockcore.Driver.
func (f *wrapped) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	defer f.enter("read")()
	return f.told(f.inner.ReadAt(t, p, off))
}

// WriteAt implements blockcore.Writer.
func (f *wrapped) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) (err error) {
	defer f.enter("write")()
	defer f.writes(blockcore.Range{Offset: off, Length: int64(len(p))}, &err)()
	return f.told(f.inner.WriteAt(t, p, off, flags))
}

// Flush implements blockcore.Flusher.
func (f *wrapped) Flush(t *blockcore.Task) error {
	defer f.enterFlush()()
	return f.told(f.inner.Flush(t))
}

// WriteZeroes implements blockcore.Zeroer.
func (f *wrapped) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) (err error) {
	defer f.enter("zero")()
	defer f.writes(r, &err)()
	return f.told(f.inner.WriteZeroes(t, r, flags))
}

// Discard implements blockcore.Discarder.
func (f *wrapped) Discard(t *blockcore.Task, r blockcore.Range) (err error) {
	defer f.enter("discard")()
	defer f.writes(r, &err)()
	return f.told(f.inner.Discard(t, r))
}

// Resize implements blockcore.Resizer.
func (f *wrapped) Resize(t *blockcore.Task, sizeBytes int64) error {
	defer f.enterDrained("resize")()
	return f.told(f.inner.Resize(t, sizeBytes))
}
