package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

type qomArgs struct {
	Path     string `qmp:"path"`
	Property string `qmp:"property"`
}

// What holds objects is one itself: the root, and what is in it.
const (
	containerKind    = "container"
	objectsName      = "objects"
	rootContainer    = "/"
	objectsContainer = rootContainer + objectsName
)

// objectAt finds the object, or the container, that a QOM path names: "/objects/ID", or the end of such a path. Slashes too many do no harm.
func (p *Plane) objectAt(path string) (*object, error) {
	names, fromRoot := strings.FieldsFunc(path, func(r rune) bool { return r == '/' }), strings.HasPrefix(path, rootContainer)
	id := ""
	switch {
	case len(names) == 0 && fromRoot:
		return &object{id: rootContainer, kind: containerKind}, nil
	case len(names) == 1 && names[0] == objectsName:
		return &object{id: objectsContainer, kind: containerKind}, nil
	case len(names) == 1 && !fromRoot:
		id = names[0]
	case len(names) == 2 && names[0] == objectsName:
		id = names[1]
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

// readProperty reads a property of an object, or of a container.
func (p *Plane) readProperty(o *object, name string) (any, bool) {
	switch {
	case name == "type":
	case o.id == rootContainer:
		return objectsContainer, name == objectsName
	case o.id == objectsContainer:
		return objectsContainer + "/" + name, p.object(name) != nil
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

// qomEntry is a property in the answer to qom-list.
type qomEntry struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// qomList lists what a container holds, or the properties of an object.
func (p *Plane) qomList(_ context.Context, _ *qmp.Call, a *qomListArgs) (any, error) {
	o, err := p.objectAt(a.Path)
	if err != nil {
		return nil, err
	}
	list := []qomEntry{{"type", "string"}}
	switch o.id {
	case rootContainer:
		return append(list, qomChild(objectsName, containerKind)), nil
	case objectsContainer:
		return append(list, p.qomObjects()...), nil
	}
	if o.group != nil {
		list = append(list, qomEntry{"limits", "ThrottleLimits"})
		for _, p := range blockcore.ThrottleProperties {
			list = append(list, qomEntry{p.Legacy, "int"})
		}
	}
	for _, p := range o.loopProperties() {
		list = append(list, qomEntry{p.name, "int"})
	}
	return list, nil
}

func qomChild(name, kind string) qomEntry { return qomEntry{name, "child<" + kind + ">"} }

// qomObjects are all objects, in the order of their names.
func (p *Plane) qomObjects() []qomEntry {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []qomEntry{}
	for _, o := range p.objects {
		list = append(list, qomChild(o.id, o.kind))
	}
	slices.SortFunc(list, func(a, b qomEntry) int { return compare(a.Name, b.Name) })
	return list
}
