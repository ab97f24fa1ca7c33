package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// object is what object-add has made, of one of these kinds.
type object struct {
	id    string
	kind  string
	loop  *blockcore.AioContext
	lent  bool // the loop belongs to somebody else, who stops it
	poll  pollOptions
	group *blockcore.ThrottleGroup
	creds *nbd.TLSCredentials
	authz nbd.Authorizer
}

// pollOptions are what an iothread was made with.
type pollOptions struct {
	PollMaxNS *int64 `qmp:"poll-max-ns"`
	PollGrow  int64  `qmp:"poll-grow,optional"`
	PollShrnk int64  `qmp:"poll-shrink,optional"`
	AIOBatch  int64  `qmp:"aio-max-batch,optional"`
	PoolMin   int64  `qmp:"thread-pool-min,optional"`
	PoolMax   *int64 `qmp:"thread-pool-max"`
}

// objectKinds make an object of the options that are left.
var objectKinds = map[string]func(*Plane, *object, qmp.Value) error{
	"iothread":        (*Plane).makeIOThread,
	"main-loop":       (*Plane).makeMainLoop,
	"throttle-group":  (*Plane).makeThrottleGroup,
	"tls-creds-x509":  (*Plane).makeSecurity,
	"authz-simple":    (*Plane).makeSecurity,
	"authz-list":      (*Plane).makeSecurity,
	"authz-list-file": (*Plane).makeSecurity,
}

func (p *Plane) objectAdd(ctx context.Context, call *qmp.Call) (any, error) {
	return nil, p.AddObject(call.Arguments)
}

// AddObject is object-add for the command line.
func (p *Plane) AddObject(v qmp.Value) error {
	var head struct {
		Kind string `qmp:"qom-type"`
		ID   string `qmp:"id"`
	}
	rest, err := v.Take(&head)
	if err != nil {
		return err
	}
	makeIt, known := objectKinds[head.Kind]
	if !known {
		return qmp.NotAccepted("qom-type", head.Kind)
	}
	if !wellFormed.MatchString(head.ID) {
		return qmp.Errorf("Parameter 'id' expects an identifier\nIdentifiers consist of letters, digits, '-', '.', '_', starting with a letter.")
	}
	o := &object{id: head.ID, kind: head.Kind}
	if err := p.reserve(o); err != nil {
		return err
	}
	if err := makeIt(p, o, rest); err != nil {
		p.mu.Lock()
		delete(p.objects, o.id)
		p.mu.Unlock()
		return err
	}
	return nil
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
	return p.reserve(&object{id: loop.Name(), kind: "iothread", loop: loop, lent: true})
}

// poolMax bounds thread-pool-max: QEMU's pool has at most 64 by default, and nobody has use for more than this.
const poolMax = 4096

func (p *Plane) makeIOThread(o *object, v qmp.Value) error {
	if err := v.Decode(&o.poll); err != nil {
		return err
	}
	options := blockcore.ContextOptions{Name: o.id}
	if ns := o.poll.PollMaxNS; ns != nil {
		if *ns < 0 {
			return qmp.Errorf("poll-max-ns value must be in range [0, 9223372036854775807]")
		}
		options.PollMax = time.Duration(*ns)
		if *ns == 0 {
			options.PollMax = -1
		}
	}
	if n := o.poll.PoolMax; n != nil {
		if *n < 1 || *n > poolMax {
			return qmp.Errorf("thread-pool-max value must be in range [1, %d]", poolMax)
		}
		options.Workers = int(*n)
	}
	loop, err := p.options.NewContext(options)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o.loop = loop
	return nil
}

// makeMainLoop takes the options of the loop that is there already. Nothing of it can be set afterwards.
func (p *Plane) makeMainLoop(o *object, v qmp.Value) error { return v.Decode(&o.poll) }

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

// makeSecurity has the program read credentials and authorizations: the command line of 'serve' has the same ones.
func (p *Plane) makeSecurity(o *object, v qmp.Value) error {
	creds, authz, err := p.options.Security(o.kind, o.id, v.Raw())
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o.creds, o.authz = creds, authz
	return nil
}

type idArgs struct {
	ID string `qmp:"id"`
}

func (p *Plane) objectDel(_ context.Context, _ *qmp.Call, a *idArgs) (any, error) {
	o := p.object(a.ID)
	switch {
	case o == nil:
		return nil, qmp.Errorf("object '%s' not found", a.ID)
	case o.lent:
		return nil, qmp.Errorf("object '%s' belongs to the command line, can not be deleted", a.ID)
	case p.inUse(o):
		return nil, qmp.Errorf("object '%s' is in use, can not be deleted", a.ID)
	}
	p.mu.Lock()
	delete(p.objects, a.ID)
	p.mu.Unlock()
	return nil, p.releaseObject(o)
}

func (p *Plane) object(id string) *object {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.objects[id]
}

// inUse reports whether something refers to o.
func (p *Plane) inUse(o *object) bool {
	if o.loop != nil {
		for _, n := range p.graph.Nodes() {
			if n.Context() == o.loop {
				return true
			}
		}
	}
	if o.group != nil && len(o.group.Members()) > 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server != nil && (o.creds != nil && p.server.creds == o.id || o.authz != nil && p.server.authz == o.id)
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

// ioThread finds the event loop of an iothread object.
func (p *Plane) ioThread(id string) (*blockcore.AioContext, error) {
	if o := p.object(id); o != nil && o.loop != nil {
		return o.loop, nil
	}
	return nil, qmp.Errorf(`iothread "%s" not found`, id)
}

// throttleGroup finds a group.
func (p *Plane) throttleGroup(id string) (*blockcore.ThrottleGroup, error) {
	if o := p.object(id); o != nil && o.group != nil {
		return o.group, nil
	}
	return nil, qmp.Errorf("Throttle group '%s' does not exist", id)
}

type qomArgs struct {
	Path     string `qmp:"path"`
	Property string `qmp:"property"`
}

// objectAt finds the object that a QOM path names: "/objects/ID", or "ID" alone.
func (p *Plane) objectAt(path string) (*object, error) {
	id := path
	for _, prefix := range []string{"/objects/", "/"} {
		if len(path) > len(prefix) && path[:len(prefix)] == prefix {
			id = path[len(prefix):]
			break
		}
	}
	if o := p.object(id); o != nil {
		return o, nil
	}
	return nil, &qmp.Error{Class: qmp.DeviceNotFound, Desc: fmt.Sprintf("Device '%s' not found", path)}
}

func (p *Plane) qomGet(_ context.Context, _ *qmp.Call, a *qomArgs) (any, error) {
	o, err := p.objectAt(a.Path)
	if err != nil {
		return nil, err
	}
	if value, known := o.property(a.Property); known {
		return value, nil
	}
	return nil, noProperty(o, a.Property)
}

func noProperty(o *object, name string) error {
	return qmp.Errorf("Property '%s.%s' not found", o.kind, name)
}

// property reads what can be read of an object.
func (o *object) property(name string) (any, bool) {
	switch {
	case name == "type":
		return o.kind, true
	case o.group != nil && name == "limits":
		limits := map[string]int64{}
		for _, p := range blockcore.ThrottleProperties {
			limits[p.Name] = p.Value(o.group.Config())
		}
		return limits, true
	case o.group != nil:
		for _, p := range blockcore.ThrottleProperties {
			if p.Legacy == name {
				return p.Value(o.group.Config()), true
			}
		}
	case o.loop != nil && name == "poll-max-ns":
		return o.pollMax(), true
	}
	return nil, false
}

func (o *object) pollMax() int64 {
	if o.poll.PollMaxNS == nil {
		return int64(blockcore.PollMaxDefault)
	}
	return *o.poll.PollMaxNS
}

type qomSetArgs struct {
	qomArgs
	Value qmp.Value `qmp:"value"`
}

// qomSet changes the limits of a throttle group under live requests.
func (p *Plane) qomSet(_ context.Context, _ *qmp.Call, a *qomSetArgs) (any, error) {
	o, err := p.objectAt(a.Path)
	if err != nil {
		return nil, err
	}
	if o.group == nil {
		if _, known := o.property(a.Property); known {
			return nil, qmp.Errorf("Property '%s.%s' is fixed once the object is there", o.kind, a.Property)
		}
		return nil, noProperty(o, a.Property)
	}
	if a.Property != "limits" {
		if _, known := o.property(a.Property); known {
			return nil, qmp.Errorf("Property cannot be set after initialization")
		}
		return nil, noProperty(o, a.Property)
	}
	config, err := setLimits(a.Value, o.group.Config(), (blockcore.ThrottleProperty).Set, named)
	if err != nil {
		return nil, err
	}
	return nil, o.group.Configure(config)
}

type qomListArgs struct {
	Path string `qmp:"path"`
}

// qomList lists the objects, or the properties of one.
func (p *Plane) qomList(_ context.Context, _ *qmp.Call, a *qomListArgs) (any, error) {
	type entry struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	list := []entry{}
	if a.Path == "/objects" {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, o := range p.objects {
			list = append(list, entry{o.id, "child<" + o.kind + ">"})
		}
		slices.SortFunc(list, func(a, b entry) int { return compare(a.Name, b.Name) })
		return list, nil
	}
	o, err := p.objectAt(a.Path)
	if err != nil {
		return nil, err
	}
	list = append(list, entry{"type", "string"})
	if o.group != nil {
		list = append(list, entry{"limits", "ThrottleLimits"})
	}
	if o.loop != nil {
		list = append(list, entry{"poll-max-ns", "int"})
	}
	return list, nil
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
			list = append(list, info{o.id, o.loop.ThreadID(), o.pollMax(), o.poll.PollGrow, o.poll.PollShrnk, o.poll.AIOBatch})
		}
	}
	slices.SortFunc(list, func(a, b info) int { return compare(a.ID, b.ID) })
	return list, nil
}
