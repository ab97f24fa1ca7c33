package control

import (
	"context"
	"fmt"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

type qomArgs struct {
	Path     string `qmp:"path"`
	Property string `qmp:"property"`
}

// What holds the objects is one itself.
const (
	containerPath = "/objects"
	containerKind = "container"
)

// objectAt finds the object that a QOM path names: "/objects/ID", or "ID" alone.
func (p *Plane) objectAt(path string) (*object, error) {
	if path == containerPath {
		return &object{kind: containerKind}, nil
	}
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
	if value, known := p.readProperty(o, a.Property); known {
		return value, nil
	}
	return nil, noProperty(o, a.Property)
}

// readProperty reads a property of an object, or of the container of all of them.
func (p *Plane) readProperty(o *object, name string) (any, bool) {
	if o.kind == containerKind && name != "type" {
		return "/objects/" + name, p.object(name) != nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return o.property(name)
}

func noProperty(o *object, name string) error {
	return qmp.Errorf("Property '%s.%s' not found", o.kind, name)
}

// property reads what can be read of an object. It expects Plane.mu to be held.
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
	case o.tuned != nil:
		if at := o.loopProperty(name); at != nil {
			return *at.of(&o.loops), true
		}
	}
	return nil, false
}

type qomSetArgs struct {
	qomArgs
	Value qmp.Value `qmp:"value"`
}

// qomSet changes the limits of a throttle group, or how an event loop works, under live requests.
func (p *Plane) qomSet(_ context.Context, _ *qmp.Call, a *qomSetArgs) (any, error) {
	o, err := p.objectAt(a.Path)
	if err != nil {
		return nil, err
	}
	if _, known := p.readProperty(o, a.Property); !known {
		return nil, noProperty(o, a.Property)
	}
	switch {
	case a.Property == "type" || o.kind == containerKind:
		return nil, qmp.Errorf("Property '%s.%s' is not writable", o.kind, a.Property)
	case o.tuned != nil:
		return nil, p.setLoopProperty(o, a)
	case o.group == nil:
		return nil, qmp.Errorf("Property '%s.%s' is fixed once the object is there", o.kind, a.Property)
	case a.Property != "limits":
		return nil, qmp.Errorf("Property cannot be set after initialization")
	}
	limits, err := a.named()
	if err != nil {
		return nil, err
	}
	config, err := setLimits(limits, o.group.Config(), (blockcore.ThrottleProperty).Set, named)
	if err != nil {
		return nil, err
	}
	return nil, o.group.Configure(config)
}

// named is the value under the name by which QEMU's errors call it: that of a property that there is.
func (a *qomSetArgs) named() (qmp.Value, error) {
	v, err := qmp.ParseValue(fmt.Appendf(nil, `{%q:%s}`, a.Property, a.Value.Raw()))
	return v.Member(a.Property), err
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
	if a.Path == containerPath {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, o := range p.objects {
			list = append(list, entry{o.id, "child<" + o.kind + ">"})
		}
		slices.SortFunc(list, func(a, b entry) int { return compare(a.Name, b.Name) })
		return slices.Insert(list, 0, entry{"type", "string"}), nil
	}
	o, err := p.objectAt(a.Path)
	if err != nil {
		return nil, err
	}
	list = append(list, entry{"type", "string"})
	if o.group != nil {
		list = append(list, entry{"limits", "ThrottleLimits"})
		for _, p := range blockcore.ThrottleProperties {
			list = append(list, entry{p.Legacy, "int"})
		}
	}
	for _, p := range o.loopProperties() {
		list = append(list, entry{p.name, "int"})
	}
	return list, nil
}
