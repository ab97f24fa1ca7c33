package control

import (
	"context"
	"errors"
	"maps"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// object is what object-add has made, of one of these kinds.
type object struct {
	id   string
	kind string
	loop *blockcore.AioContext // of an iothread
	lent bool                  // the loop belongs to somebody else, who stops it

	// Guarded by Plane.mu.
	tuned *blockcore.AioContext // the loop whose properties are the object's; nil = it has none such
	loops loopOptions           // these properties
	made  bool                  // an id is taken before there is an object
	held  int                   // commands that are about to use it
	group *blockcore.ThrottleGroup
	Security
}

// objectKinds make an object of the options that are left.
var objectKinds = map[string]func(*Plane, *object, qmp.Value) error{
	"iothread":        (*Plane).makeIOThread,
	mainLoopKind:      (*Plane).makeMainLoop,
	"throttle-group":  (*Plane).makeThrottleGroup,
	"tls-creds-x509":  (*Plane).makeSecurity,
	"authz-simple":    (*Plane).makeSecurity,
	"authz-list":      (*Plane).makeSecurity,
	"authz-list-file": (*Plane).makeSecurity,
	"secret":          (*Plane).makeSecurity,
	"secret_keyring":  (*Plane).makeSecurity,
}

// ObjectKinds are the kinds that object-add can make, in the order of their names.
func ObjectKinds() []string { return slices.Sorted(maps.Keys(objectKinds)) }

func (p *Plane) objectAdd(ctx context.Context, call *qmp.Call) (any, error) {
	return nil, p.AddObject(call.Arguments)
}

// AddObject is object-add for the command line.
func (p *Plane) AddObject(v qmp.Value) error {
	var kind struct {
		Kind string `qmp:"qom-type"`
	}
	rest, err := v.Take(&kind)
	if err != nil {
		return err
	}
	makeIt, known := objectKinds[kind.Kind]
	if !known {
		return qmp.NotAccepted("qom-type", kind.Kind)
	}
	var head struct {
		ID string `qmp:"id"`
	}
	if rest, err = rest.Take(&head); err != nil {
		return err
	}
	if !blockcore.IsIdentifier(head.ID) {
		return NotIdentifier()
	}
	o := &object{id: head.ID, kind: kind.Kind}
	if err := p.reserve(o); err != nil {
		return err
	}
	err = makeIt(p, o, rest)
	p.mu.Lock()
	defer p.mu.Unlock()
	o.made = err == nil
	if err != nil {
		delete(p.objects, o.id)
	}
	return err
}

// NotIdentifier is the error about an id that is none.
func NotIdentifier() error {
	return &qmp.Detailed{
		Err:    qmp.Expects("id", "an identifier"),
		Detail: "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
	}
}

// reserve takes an id before the object is made.
func (p *Plane) reserve(o *object) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.objects[o.id]; taken {
		return qmp.Errorf("attempt to add duplicate property '%s' to object (type 'container')", o.id)
	}
	p.objects[o.id] = o
	return nil
}

// AdoptIOThread makes an event loop known, under its name, that somebody else has started and stops.
func (p *Plane) AdoptIOThread(loop *blockcore.AioContext) error {
	return p.reserve(&object{id: loop.Name(), kind: "iothread", loop: loop, tuned: loop, loops: optionsOf(loop.Tuning()), lent: true, made: true})
}

func (p *Plane) makeThrottleGroup(o *object, v qmp.Value) error {
	config, err := readLimits(v, blockcore.ThrottleConfig{})
	if err != nil {
		return err
	}
	group := blockcore.NewThrottleGroup(o.id)
	if err := group.Configure(config); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o.group = group
	return nil
}

// readLimits reads "limits": {...} and the x- properties of old.
func readLimits(v qmp.Value, config blockcore.ThrottleConfig) (blockcore.ThrottleConfig, error) {
	var outer struct {
		Limits *qmp.Value `qmp:"limits"`
	}
	rest, err := v.Take(&outer)
	if err != nil {
		return config, err
	}
	if outer.Limits != nil {
		if config, err = setLimits(*outer.Limits, config, (blockcore.ThrottleProperty).Set, named); err != nil {
			return config, err
		}
	}
	return setLimits(rest, config, (blockcore.ThrottleProperty).SetLegacy, namedOfOld)
}

func named(p blockcore.ThrottleProperty) string      { return p.Name }
func namedOfOld(p blockcore.ThrottleProperty) string { return p.Legacy }

// setLimits changes the limits that v names.
func setLimits(
	v qmp.Value, config blockcore.ThrottleConfig,
	set func(blockcore.ThrottleProperty, *blockcore.ThrottleConfig, int64) error, name func(blockcore.ThrottleProperty) string,
) (blockcore.ThrottleConfig, error) {
	if v.Kind() != qmp.Object {
		return config, v.WrongType("object")
	}
	for _, member := range v.Members() {
		at := slices.IndexFunc(blockcore.ThrottleProperties, func(p blockcore.ThrottleProperty) bool { return name(p) == member })
		if at < 0 {
			return config, qmp.Unexpected(v.Member(member).Path())
		}
		var value int64
		if err := v.Member(member).Decode(&value); err != nil {
			return config, err
		}
		if err := set(blockcore.ThrottleProperties[at], &config, value); err != nil {
			return config, err
		}
	}
	return config, nil
}

type idArgs struct {
	ID string `qmp:"id"`
}

// objectDel looks whether an object is in use, and takes it out, while the graph is not being changed: a node that a change has taken off an event
// loop may come back to it until that change stands. The loop ends afterwards, and nobody finds it meanwhile.
func (p *Plane) objectDel(ctx context.Context, _ *qmp.Call, a *idArgs) (any, error) {
	if err := p.usedByLeaving(a.ID); err != nil {
		return nil, err // the change that removes the node may last
	}
	var o *object
	err := p.graph.BetweenChanges(ctx, "object-del "+a.ID, func() (err error) {
		o, err = p.takeOut(a.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return nil, p.releaseObject(o)
}

// takeOut removes an object from the registry if nothing uses it. Between changes of the graph, so that no move is under way.
func (p *Plane) takeOut(id string) (*object, error) {
	if err := p.usedByLeaving(id); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.objects[id]
	switch {
	case o == nil || !o.made:
		return nil, qmp.Errorf("object '%s' not found", id)
	case o.lent:
		return nil, qmp.Errorf("object '%s' belongs to the command line, can not be deleted", id)
	case o.kind == mainLoopKind, p.inUse(o):
		return nil, inUse("object '%s' is in use, can not be deleted", id)
	}
	delete(p.objects, id)
	return o, nil
}

func (p *Plane) object(id string) *object {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.objects[id]; o != nil && o.made {
		return o
	}
	return nil
}

// inUse reports whether something refers to o. It expects p.mu to be held.
func (p *Plane) inUse(o *object) bool {
	if o.loop != nil {
		for _, n := range p.graph.Nodes() {
			if n.Context() == o.loop {
				return true
			}
		}
	}
	if o.held > 0 || o.group != nil && len(o.group.Members()) > 0 {
		return true
	}
	return p.server != nil && (o.Credentials != nil && p.server.creds == o.id || o.Authorizer != nil && p.server.authz == o.id)
}

func (p *Plane) releaseObject(o *object) error {
	if o.loop != nil && !o.lent {
		o.loop.Close()
	}
	return nil
}

func (p *Plane) removeObjects() error {
	p.mu.Lock()
	all := p.objects
	p.objects = map[string]*object{}
	p.mu.Unlock()
	var errs []error
	for _, o := range all {
		errs = append(errs, p.releaseObject(o))
	}
	return errors.Join(errs...)
}

// holdIOThread finds an iothread object, which is in use until letGo.
func (p *Plane) holdIOThread(id string) (*object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.objects[id]
	if o == nil || !o.made || o.loop == nil {
		return nil, qmp.Errorf(`iothread "%s" not found`, id)
	}
	o.held++
	return o, nil
}

func (p *Plane) letGo(o *object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.held--
}

// throttleGroup finds a group.
func (p *Plane) throttleGroup(id string) (*blockcore.ThrottleGroup, error) {
	if o := p.object(id); o != nil && o.group != nil {
		return o.group, nil
	}
	return nil, qmp.Errorf("Throttle group '%s' does not exist", id)
}
