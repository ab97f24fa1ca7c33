package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"nbd-dataplane/backends/filters"
	"nbd-dataplane/blockcore"
)

// realDriver is what the drivers of backends/filters have in common: they are built on blockcore.Filter.
type realDriver interface {
	blockcore.Driver
	blockcore.Writer
	blockcore.Flusher
	blockcore.Zeroer
	blockcore.Discarder
	blockcore.Resizer
	blockcore.Parent
	blockcore.ChildChecker
	blockcore.Stretcher
	blockcore.Limiter
	blockcore.Featurer
}

// real is a driver of backends/filters, with the simulation's checks around it. Its map stays below: it is for the copy-on-read that stands on
// the disk itself, since one that stands higher does not see who writes to the disk past it.
type real struct {
	layer

	// Immutable.
	kind   string
	driver realDriver
}

// realKinds make the drivers, each with options that the seed chooses.
var realKinds = []struct {
	kind string
	make func(w *world, rng *rand.Rand) (realDriver, error)
}{
	{"throttle", func(w *world, rng *rand.Rand) (realDriver, error) {
		group, _ := pick(rng, w.groups)
		return filters.NewThrottle(filters.ThrottleOptions{Group: group})
	}},
	{"inject", func(_ *world, rng *rand.Rand) (realDriver, error) {
		return filters.NewInject(filters.InjectOptions{Rules: someRules(rng), Seed: 1 + rng.Uint64N(1<<40)})
	}},
	{"raw", func(*world, *rand.Rand) (realDriver, error) { return filters.NewRaw(filters.RawOptions{}) }},
	{copyKind, func(*world, *rand.Rand) (realDriver, error) { return filters.NewCopyOnRead(), nil }},
}

// copyKind stands on disks only.
const copyKind = "copy"

// someRules delay some requests and fail others. None holds requests: a section would wait for that to end.
func someRules(rng *rand.Rand) []filters.InjectRule {
	var rules []filters.InjectRule
	for range rng.IntN(3) {
		r := filters.InjectRule{Skip: rng.IntN(5), Times: rng.IntN(10), Probability: 0.1}
		if rng.IntN(2) == 0 {
			r.Delay = time.Duration(1+rng.IntN(500)) * time.Microsecond
		} else {
			r.Errno = syscall.EIO
		}
		rules = append(rules, r)
	}
	return rules
}

// newReal makes one of the drivers, on a disk or on something else.
func (w *world) newReal(rng *rand.Rand, onDisk bool) driver {
	kinds := len(realKinds)
	if !onDisk {
		kinds--
	}
	one := realKinds[rng.IntN(kinds)]
	d, err := one.make(w, rng)
	if err != nil {
		w.fail("a driver of kind %s: %v", one.kind, err)
	}
	f := &real{kind: one.kind, driver: d}
	f.layer.init(w, w.newName(one.kind), f)
	return f
}

// forgo closes a driver that did not get into the graph.
func forgo(d driver) {
	if f, ok := d.(*real); ok {
		_ = f.driver.Close(nil) // of those here none does I/O in it
	}
}

// SetNode implements blockcore.Adopter.
func (f *real) SetNode(n *blockcore.Node) {
	f.layer.SetNode(n)
	if a, ok := f.driver.(blockcore.Adopter); ok {
		a.SetNode(n)
	}
}

// SetChild implements blockcore.Parent.
func (f *real) SetChild(role blockcore.Role, e *blockcore.Edge) {
	if f.running > 0 {
		f.w.fail("node %s gets another child with %d requests in it", f.name, f.running)
	}
	f.file = e
	f.driver.SetChild(role, e)
}

// CheckChildren implements blockcore.ChildChecker.
func (f *real) CheckChildren() error { return f.driver.CheckChildren() }

// SizeOver implements blockcore.Stretcher.
func (f *real) SizeOver(childBytes int64) (int64, error) { return f.driver.SizeOver(childBytes) }

// ChildPermissions implements blockcore.ChildPermitter, with its default.
func (f *real) ChildPermissions(role blockcore.Role, perm, shared blockcore.Permissions) (blockcore.Permissions, blockcore.Permissions) {
	if p, ok := f.driver.(blockcore.ChildPermitter); ok {
		return p.ChildPermissions(role, perm, shared)
	}
	return perm, shared
}

// Size implements blockcore.Driver.
func (f *real) Size() int64 { return f.driver.Size() }

// Limits implements blockcore.Limiter.
func (f *real) Limits() blockcore.Limits { return f.driver.Limits() }

// Features implements blockcore.Featurer.
func (f *real) Features() blockcore.Features { return f.driver.Features() }

// Quiesce implements blockcore.Quiescer.
func (f *real) Quiesce() {
	f.layer.Quiesce()
	if q, ok := f.driver.(blockcore.Quiescer); ok {
		q.Quiesce()
	}
}

// Resume implements blockcore.Quiescer.
func (f *real) Resume() {
	if q, ok := f.driver.(blockcore.Quiescer); ok {
		q.Resume()
	}
	f.layer.Resume()
}

// Detach implements blockcore.ContextFollower.
func (f *real) Detach() {
	if c, ok := f.driver.(blockcore.ContextFollower); ok {
		c.Detach()
	}
	f.layer.Detach()
}

// Attach implements blockcore.ContextFollower.
func (f *real) Attach(ctx *blockcore.AioContext) {
	f.layer.Attach(ctx)
	if c, ok := f.driver.(blockcore.ContextFollower); ok {
		c.Attach(ctx)
	}
}

// Close implements blockcore.Driver.
func (f *real) Close(t *blockcore.Task) error {
	return errors.Join(f.layer.Close(t), f.driver.Close(t))
}

// told makes what the filter itself injects known to the simulation.
func (f *real) told(err error) error {
	if err == nil || errors.Is(err, errInjected) || !errors.Is(err, syscall.EIO) {
		return err
	}
	f.w.count("injected in the graph")
	return fmt.Errorf("%w: %w", errInjected, err)
}

// ReadAt implements blockcore.Driver.
func (f *real) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	defer f.enter("read")()
	return f.told(f.driver.ReadAt(t, p, off))
}

// WriteAt implements blockcore.Writer.
func (f *real) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	defer f.enter("write")()
	return f.told(f.driver.WriteAt(t, p, off, flags))
}

// Flush implements blockcore.Flusher.
func (f *real) Flush(t *blockcore.Task) error {
	defer f.enterFlush()()
	return f.told(f.driver.Flush(t))
}

// WriteZeroes implements blockcore.Zeroer.
func (f *real) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	defer f.enter("zero")()
	return f.told(f.driver.WriteZeroes(t, r, flags))
}

// Discard implements blockcore.Discarder.
func (f *real) Discard(t *blockcore.Task, r blockcore.Range) error {
	defer f.enter("discard")()
	return f.told(f.driver.Discard(t, r))
}

// Resize implements blockcore.Resizer.
func (f *real) Resize(t *blockcore.Task, sizeBytes int64) error {
	defer f.enterDrained("resize")()
	return f.told(f.driver.Resize(t, sizeBytes))
}

// rules changes what a filter injects. No section is needed.
func (c *controller) rules() {
	d := c.pickLayer(func(d driver) bool { f, ok := d.(*real); return ok && f.kind == "inject" })
	if d == nil {
		return
	}
	if err := d.(*real).driver.(*filters.Inject).SetRules(someRules(c.rng)); err != nil {
		c.w.fail("node %s: rules: %v", d.common().name, err)
	}
}
