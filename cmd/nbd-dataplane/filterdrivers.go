package main

import (
	"cmp"
	"errors"
	"syscall"
	"time"

	"nbd-dataplane/backends/filters"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/qmp"
)

// filterDrivers are the drivers that stand on another node.
func filterDrivers() map[string]control.Driver {
	return map[string]control.Driver{
		"raw":          {Open: openRawNode, Reopen: reopened(rawNodeOptions)},
		"throttle":     {Open: openThrottleNode, Reopen: reopened(throttleNodeOptions)},
		"copy-on-read": {Open: openCopyOnReadNode, Reopen: reopenCopyOnRead},
		"compress":     {Open: openCompressNode},
		"inject":       {Open: openInjectNode(injectNodeOptions), Reopen: reopened(injectNodeOptions), Live: setRules},
		"blkdebug":     {Open: openInjectNode(blkdebugNodeOptions), Reopen: reopened(blkdebugNodeOptions), Live: setRules},
	}
}

// reopened reads options for a driver that is there.
func reopened[O any](read func(*control.Opening) (O, error)) func(*control.Opening) (any, error) {
	return func(o *control.Opening) (any, error) {
		options, err := read(o)
		if err != nil {
			return nil, err
		}
		return options, nil
	}
}

func rawNodeOptions(o *control.Opening) (filters.RawOptions, error) {
	var n struct {
		File   qmp.Value `qmp:"file"`
		Offset int64     `qmp:"offset,optional"`
		Size   int64     `qmp:"size,optional"`
	}
	options := filters.RawOptions{}
	if err := o.Decode(&n); err != nil {
		return options, err
	}
	switch {
	case n.Offset < 0:
		return options, qmp.Expects("offset", "a non-negative number below 2^64")
	case n.Size < 0:
		return options, qmp.Expects("size", "a non-negative number below 2^64")
	}
	options.Offset, options.SizeBytes = n.Offset, n.Size
	fileBytes, err := o.Child(blockcore.RoleFile, n.File)
	switch {
	case err != nil || fileBytes < 0:
		return options, err
	case n.Offset > fileBytes:
		return options, qmp.Errorf("Offset (%d) cannot be greater than size of the containing file (%d)", n.Offset, fileBytes)
	case n.Size%512 != 0:
		return options, qmp.Errorf("Specified size is not multiple of 512")
	case fileBytes-n.Offset < n.Size:
		return options, qmp.Errorf("The sum of offset (%d) and size (%d) has to be smaller or equal to the  actual size of the containing file (%d)", n.Offset, n.Size, fileBytes)
	}
	return options, nil
}

func openRawNode(o *control.Opening) (blockcore.Driver, error) {
	options, err := rawNodeOptions(o)
	if err != nil {
		return nil, err
	}
	return filters.NewRaw(options)
}

func throttleNodeOptions(o *control.Opening) (options filters.ThrottleOptions, err error) {
	var n struct {
		Group string    `qmp:"throttle-group"`
		File  qmp.Value `qmp:"file"`
	}
	if err := o.Decode(&n); err != nil {
		return options, err
	}
	if options.Group, err = o.Group(n.Group); err != nil {
		return options, err
	}
	_, err = o.Child(blockcore.RoleFile, n.File)
	return options, err
}

func openThrottleNode(o *control.Opening) (blockcore.Driver, error) {
	options, err := throttleNodeOptions(o)
	if err != nil {
		return nil, err
	}
	return filters.NewThrottle(options)
}

func openCopyOnReadNode(o *control.Opening) (blockcore.Driver, error) {
	if _, err := reopenCopyOnRead(o); err != nil {
		return nil, err
	}
	return filters.NewCopyOnRead(), nil
}

// reopenCopyOnRead has no options for the driver, only for its child.
func reopenCopyOnRead(o *control.Opening) (any, error) {
	var n struct {
		File   qmp.Value `qmp:"file"`
		Bottom *string   `qmp:"bottom"`
	}
	if err := o.Decode(&n); err != nil {
		return nil, err
	}
	if n.Bottom != nil {
		return nil, qmp.Errorf("Bottom node '%s' not found", *n.Bottom)
	}
	_, err := o.Child(blockcore.RoleFile, n.File)
	return nil, err
}

// openCompressNode opens the filter on a child that compresses.
func openCompressNode(o *control.Opening) (blockcore.Driver, error) {
	var n struct {
		File qmp.Value `qmp:"file"`
	}
	if err := o.Decode(&n); err != nil {
		return nil, err
	}
	if _, err := o.Child(blockcore.RoleFile, n.File); err != nil {
		return nil, err
	}
	if name, child := o.ChildDriver(blockcore.RoleFile); child != nil {
		if _, ok := child.(blockcore.Compressor); !ok {
			return nil, qmp.Errorf("Compression is not supported for underlying format: %s", name)
		}
	}
	return filters.NewCompress(), nil
}

func openInjectNode(read func(*control.Opening) (filters.InjectOptions, error)) func(*control.Opening) (blockcore.Driver, error) {
	return func(o *control.Opening) (blockcore.Driver, error) {
		options, err := read(o)
		if err != nil {
			return nil, err
		}
		return filters.NewInject(options)
	}
}

// setRules changes what is injected without a drain, which would wait for requests that are held.
func setRules(d blockcore.Driver, options any) error {
	return d.(*filters.Inject).SetRules(options.(filters.InjectOptions).Rules)
}

// releaseHeld lets requests go on that rules hold: the end of the program waits for them.
func releaseHeld(g *blockcore.Graph) {
	for _, n := range g.Nodes() {
		if inject, ok := n.Driver().(*filters.Inject); ok {
			_ = inject.SetRules(nil) // no rules cannot be wrong
		}
	}
}

// injectRule is an element of the option rules of the driver inject.
type injectRule struct {
	Ops         []string `qmp:"ops,optional"`
	Offset      int64    `qmp:"offset,optional"`
	Length      int64    `qmp:"length,optional"`
	Skip        int      `qmp:"skip,optional"`
	Times       int      `qmp:"times,optional"`
	Probability float64  `qmp:"probability,optional"`
	Hold        bool     `qmp:"hold,optional"`
	DelayNS     int64    `qmp:"delay-ns,optional"`
	Errno       uint16   `qmp:"errno,optional"`
}

func (r *injectRule) rule() (filters.InjectRule, error) {
	rule := filters.InjectRule{
		Range: blockcore.Range{Offset: r.Offset, Length: r.Length}, Skip: r.Skip, Times: r.Times, Probability: r.Probability,
		Hold: r.Hold, Delay: time.Duration(r.DelayNS), Errno: syscall.Errno(r.Errno),
	}
	for _, name := range r.Ops {
		op, err := filters.ParseInjectOp(name)
		if err != nil {
			return rule, err
		}
		rule.Ops |= op
	}
	return rule, nil
}

func injectNodeOptions(o *control.Opening) (options filters.InjectOptions, err error) {
	var n struct {
		File  qmp.Value    `qmp:"file"`
		Rules []injectRule `qmp:"rules,optional"`
		Seed  uint64       `qmp:"seed,optional"`
	}
	if err := o.Decode(&n); err != nil {
		return options, err
	}
	options.Seed = n.Seed
	for _, r := range n.Rules {
		rule, err := r.rule()
		if err != nil {
			return options, err
		}
		options.Rules = append(options.Rules, rule)
	}
	if _, err := filters.NewInject(options); err != nil { // the rules as such
		return options, err
	}
	_, err = o.Child(blockcore.RoleFile, n.File)
	return options, err
}

// blkdebugError is an element of inject-error.
type blkdebugError struct {
	Event       string `qmp:"event,optional"`
	IOType      string `qmp:"iotype,optional"`
	State       *int64 `qmp:"state"`
	Errno       int    `qmp:"errno,optional"`
	Sector      *int64 `qmp:"sector"`
	Once        bool   `qmp:"once,optional"`
	Immediately bool   `qmp:"immediately,optional"`
}

// blkdebugNodeOptions are those of QEMU's driver that have a meaning here.
func blkdebugNodeOptions(o *control.Opening) (options filters.InjectOptions, err error) {
	var n struct {
		Image       qmp.Value       `qmp:"image"`
		InjectError []blkdebugError `qmp:"inject-error,optional"`
	}
	if err := o.Decode(&n); err != nil {
		return options, err
	}
	var blkdebug filters.BlkdebugOptions
	for _, e := range n.InjectError {
		if e.State != nil {
			return options, qmp.Errorf("blkdebug has no states here; leave out state")
		}
		blkdebug.InjectError = append(blkdebug.InjectError, filters.BlkdebugInjectError{
			Event: e.Event, IOType: e.IOType, Errno: e.Errno, Sector: e.Sector, Once: e.Once, Immediately: e.Immediately,
		})
	}
	if options, err = blkdebug.Inject(); err != nil {
		return options, cmp.Or(errors.Unwrap(err), err) // QEMU does not say which element it is
	}
	_, err = o.Child(blockcore.RoleFile, n.Image)
	return options, err
}
