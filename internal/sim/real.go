package sim

import (
	"math/rand/v2"
	"syscall"
	"time"

	"nbd-dataplane/backends/filters"
	"nbd-dataplane/blockcore"
)

// realDriver is what the drivers of backends/filters have in common: they are built on blockcore.Filter.
type realDriver interface {
	innerDriver
	blockcore.Stretcher
}

// real is a driver of backends/filters. Its map stays below: it is for the copy-on-read that stands on
// the disk itself, since one that stands higher does not see who writes to the disk past it.
type real struct {
	wrapped

	// Immutable.
	kind string
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
		w.Fail("a driver of kind %s: %v", one.kind, err)
	}
	f := &real{kind: one.kind}
	f.inner = d
	f.layer.init(w, w.newName(one.kind), f)
	return f
}

// forgo closes a driver that did not get into the graph.
func forgo(d driver) {
	if f, ok := d.(*real); ok {
		_ = f.inner.Close(nil) // of those here none does I/O in it
	}
}

// SizeOver implements blockcore.Stretcher.
func (f *real) SizeOver(childBytes int64) (int64, error) {
	return f.inner.(blockcore.Stretcher).SizeOver(childBytes)
}

// rules changes what a filter injects. No section is needed.
func (c *controller) rules() {
	d := c.pickLayer(func(d driver) bool { f, ok := d.(*real); return ok && f.kind == "inject" })
	if d == nil {
		return
	}
	if err := d.(*real).inner.(*filters.Inject).SetRules(someRules(c.rng)); err != nil {
		c.w.Fail("node %s: rules: %v", d.common().name, err)
	}
}
