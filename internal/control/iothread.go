package control

import (
	"context"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// loopOptions are what an iothread was made with. All but PollMax and PoolMax are taken and have no effect: what they tune in QEMU
// tunes itself here.
type loopOptions struct {
	PollMax    int64 `qmp:"poll-max-ns,optional"`
	PollGrow   int64 `qmp:"poll-grow,optional"`
	PollShrink int64 `qmp:"poll-shrink,optional"`
	AIOBatch   int64 `qmp:"aio-max-batch,optional"`
	PoolMin    int64 `qmp:"thread-pool-min,optional"`
	PoolMax    int64 `qmp:"thread-pool-max,optional"`
}

// poolMax bounds thread-pool-max: QEMU's pool has at most 64 by default, and nobody has use for more than this.
const poolMax = 4096

// loopProperties are the options of an iothread by QEMU's names.
var loopProperties = []struct {
	name string
	of   func(*loopOptions) *int64
}{
	{"poll-max-ns", func(o *loopOptions) *int64 { return &o.PollMax }},
	{"poll-grow", func(o *loopOptions) *int64 { return &o.PollGrow }},
	{"poll-shrink", func(o *loopOptions) *int64 { return &o.PollShrink }},
	{"aio-max-batch", func(o *loopOptions) *int64 { return &o.AIOBatch }},
	{"thread-pool-min", func(o *loopOptions) *int64 { return &o.PoolMin }},
	{"thread-pool-max", func(o *loopOptions) *int64 { return &o.PoolMax }},
}

// readLoopOptions reads what was given, and takes the rest from the defaults.
func readLoopOptions(v qmp.Value) (loopOptions, error) {
	o := loopOptions{PollMax: int64(blockcore.PollMaxDefault), PoolMax: blockcore.WorkersDefault}
	if err := v.Decode(&o); err != nil {
		return o, err
	}
	for _, p := range loopProperties {
		if *p.of(&o) < 0 {
			return o, qmp.Errorf("%s value must be in range [0, 9223372036854775807]", p.name)
		}
	}
	if o.PoolMax < 1 || o.PoolMax > poolMax || o.PoolMin > o.PoolMax {
		return o, qmp.Errorf("bad thread-pool-min/thread-pool-max values")
	}
	return o, nil
}

func (p *Plane) makeIOThread(o *object, v qmp.Value) error {
	loops, err := readLoopOptions(v)
	if err != nil {
		return err
	}
	options := blockcore.ContextOptions{Name: o.id, PollMax: time.Duration(loops.PollMax), Workers: int(loops.PoolMax)}
	if loops.PollMax == 0 {
		options.PollMax = -1
	}
	loop, err := p.options.NewContext(options)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o.loop, o.loops = loop, loops
	return nil
}

// makeMainLoop takes the options of the loop that is there already. Nothing of it can be set afterwards.
func (p *Plane) makeMainLoop(_ *object, v qmp.Value) error {
	_, err := readLoopOptions(v)
	return err
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
		if o.loop != nil {
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
