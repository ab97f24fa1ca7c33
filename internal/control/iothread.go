package control

import (
	"context"
	"math"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// mainLoopKind is the object that stands for the loop of nodes that nobody has put on another one.
const mainLoopKind = "main-loop"

// loopOptions are the properties of an event loop by QEMU's names. 0 is QEMU's default for all but PollMax and PoolMax, and leaves it
// to the loop.
type loopOptions struct {
	mainLoopOptions
	PollMax    int64 `qmp:"poll-max-ns,optional"`
	PollGrow   int64 `qmp:"poll-grow,optional"`
	PollShrink int64 `qmp:"poll-shrink,optional"`
}

// mainLoopOptions are those that the main loop has too.
type mainLoopOptions struct {
	PoolMin  int64 `qmp:"thread-pool-min,optional"`
	AIOBatch int64 `qmp:"aio-max-batch,optional"`
	PoolMax  int64 `qmp:"thread-pool-max,optional"`
}

// loopProperty is one of them.
type loopProperty struct {
	name string
	main bool // the main loop has it too
	of   func(*loopOptions) *int64
}

// loopProperties are all, in QEMU's order.
var loopProperties = []loopProperty{
	{"thread-pool-min", true, func(o *loopOptions) *int64 { return &o.PoolMin }},
	{"aio-max-batch", true, func(o *loopOptions) *int64 { return &o.AIOBatch }},
	{"thread-pool-max", true, func(o *loopOptions) *int64 { return &o.PoolMax }},
	{"poll-max-ns", false, func(o *loopOptions) *int64 { return &o.PollMax }},
	{"poll-grow", false, func(o *loopOptions) *int64 { return &o.PollGrow }},
	{"poll-shrink", false, func(o *loopOptions) *int64 { return &o.PollShrink }},
}

// loopProperties are those that o has.
func (o *object) loopProperties() []loopProperty {
	if o.tuned == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(loopProperties), func(p loopProperty) bool { return o.kind == mainLoopKind && !p.main })
}

// loopProperty finds one by its name; nil = o has none of that name.
func (o *object) loopProperty(name string) *loopProperty {
	for _, p := range o.loopProperties() {
		if p.name == name {
			return &p
		}
	}
	return nil
}

// optionsOf are the properties of a loop.
func optionsOf(t blockcore.Tuning) loopOptions {
	return loopOptions{
		PollMax: int64(t.PollMax), PollGrow: t.PollGrow, PollShrink: t.PollShrink,
		mainLoopOptions: mainLoopOptions{AIOBatch: t.Batch, PoolMin: int64(t.WorkersMin), PoolMax: int64(t.WorkersMax)},
	}
}

// tuning is what a loop is told.
func (o *loopOptions) tuning() blockcore.Tuning {
	return blockcore.Tuning{
		PollMax: time.Duration(o.PollMax), PollGrow: o.PollGrow, PollShrink: o.PollShrink,
		Batch: o.AIOBatch, WorkersMin: int(o.PoolMin), WorkersMax: int(o.PoolMax),
	}
}

// check refuses what QEMU refuses.
func (o *loopOptions) check() error {
	for _, p := range loopProperties {
		if *p.of(o) < 0 {
			return qmp.Errorf("%s value must be in range [0, 9223372036854775807]", p.name)
		}
	}
	if o.PoolMax < 1 || o.PoolMax > math.MaxInt32 || o.PoolMin > o.PoolMax {
		return qmp.Errorf("bad thread-pool-min/thread-pool-max values")
	}
	return nil
}

func (p *Plane) makeIOThread(o *object, v qmp.Value) error {
	loops := optionsOf(blockcore.Tuning{PollMax: blockcore.PollMaxDefault, WorkersMax: blockcore.WorkersDefault})
	if err := v.Decode(&loops); err != nil {
		return err
	}
	if err := loops.check(); err != nil {
		return err
	}
	loop, err := p.options.NewContext(blockcore.ContextOptions{Name: o.id})
	if err != nil {
		return err
	}
	loop.Tune(loops.tuning())
	p.mu.Lock()
	defer p.mu.Unlock()
	o.loop, o.tuned, o.loops = loop, loop, loops
	return nil
}

// makeMainLoop makes the object through which the loop that is there already is tuned. It stays.
func (p *Plane) makeMainLoop(o *object, v qmp.Value) error {
	loops := optionsOf(p.options.Main.Tuning())
	if err := v.Decode(&loops.mainLoopOptions); err != nil {
		return err
	}
	if err := loops.check(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.objects {
		if other.kind == mainLoopKind && other.tuned != nil {
			return qmp.Errorf("only one main-loop instance allowed")
		}
	}
	o.tuned, o.loops = p.options.Main, loops
	o.tuned.Tune(loops.tuning())
	return nil
}

// setLoopProperty changes one property of a loop that runs. What is refused changes nothing: QEMU keeps a value that it has refused for
// the sum of it with others, which we do not do after it.
func (p *Plane) setLoopProperty(o *object, a *qomSetArgs) error {
	v, err := a.named()
	if err != nil {
		return err
	}
	var value int64
	if err := v.Decode(&value); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	loops := o.loops
	*o.loopProperty(a.Property).of(&loops) = value
	if err := loops.check(); err != nil {
		return err
	}
	o.loops = loops
	o.tuned.Tune(loops.tuning())
	return nil
}

// queryIOThreads lists the event loops that clients of the monitor have made.
func (p *Plane) queryIOThreads(context.Context, *qmp.Call) (any, error) {
	type info struct {
		ID         string `json:"id"`
		ThreadID   int    `json:"thread-id"`
		PollMax    int64  `json:"poll-max-ns"`
		PollGrow   int64  `json:"poll-grow"`
		PollShrink int64  `json:"poll-shrink"`
		AIOBatch   int64  `json:"aio-max-batch"`
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []info{}
	for _, o := range p.objects {
		if o.loop != nil && o.made {
			list = append(list, info{o.id, o.loop.ThreadID(), o.loops.PollMax, o.loops.PollGrow, o.loops.PollShrink, o.loops.AIOBatch})
		}
	}
	slices.SortFunc(list, func(a, b info) int { return compare(a.ID, b.ID) })
	return list, nil
}

// usedByLeaving refuses to end an iothread while the drivers of nodes are closed on it that are removed already, which takes as long as their disks take.
func (p *Plane) usedByLeaving(id string) error {
	o := p.object(id)
	if o == nil || o.loop == nil {
		return nil
	}
	d := detail{Reason: "in-use"}
	for _, n := range p.graph.Leaving() {
		if n.Context() == o.loop {
			d.Culprits = append(d.Culprits, culprit{What: "node " + n.Name() + " was removed and is not closed yet"})
		}
	}
	if len(d.Culprits) == 0 {
		return nil
	}
	return &qmp.Detailed{Err: qmp.Errorf("object '%s' is in use, can not be deleted", id), Detail: d}
}
