package qmp

import "errors"

// request is one thing that a client sent: a command, or the error about what was none.
type request struct {
	// Immutable.
	name      string
	oob       bool
	arguments Value
	id        *node // nil if there was none
	err       error
	weight    int // bytes of memory, roughly
}

// requestOf finds out what a value from a client means. Its members are looked at in their order and before all that is about the
// command itself, such as whether there is one of that name. Without the capability "oob" the member exec-oob does
// not exist.
func requestOf(n node, oobEnabled bool) request {
	r := request{weight: n.weight()}
	if n.kind != Object {
		r.err = Errorf("QMP input must be a JSON object")
		return r
	}
	if id, has := n.member("id"); has {
		r.id = &id
	}
	named := ""
	for _, m := range n.members {
		var err error
		switch {
		case m.name == "execute" || m.name == "exec-oob" && oobEnabled:
			err = r.takeName(m, named)
			named = m.name
		case m.name == "arguments":
			r.arguments = valueOf(m.value)
			err = mustBe(m, Object, "an object")
		case m.name != "id":
			err = Errorf("QMP input member '%s' is unexpected", m.name)
		}
		if err != nil {
			r.err = err
			return r
		}
	}
	if named == "" {
		r.err = Errorf("QMP input lacks member 'execute'")
	}
	return r
}

func (r *request) takeName(m member, before string) error {
	if before != "" {
		return Errorf("QMP input member 'execute' clashes with 'exec-oob'")
	}
	r.name, r.oob = m.value.text, m.name == "exec-oob"
	return mustBe(m, String, "a string")
}

func mustBe(m member, kind Kind, what string) error {
	if m.value.kind != kind {
		return Errorf("QMP input member '%s' must be %s", m.name, what)
	}
	return nil
}

// nodeBytes is what a node costs beside its text, measured generously.
const nodeBytes = 104

func (n node) weight() int {
	sum := nodeBytes + len(n.text)
	for _, m := range n.members {
		sum += len(m.name) + m.value.weight()
	}
	for _, element := range n.elements {
		sum += element.weight()
	}
	return sum
}

// answer is the response to a request. QEMU puts the id behind a result and before an error.
func (r request) answer(result node, err error) node {
	if err == nil {
		return objectOf(r.withID(nil, member{"return", result})...)
	}
	e := ErrorOf(err)
	problem := []member{{"class", stringOf(string(e.Class))}, {"desc", stringOf(e.Desc)}}
	if more, ok := errors.AsType[*Detailed](err); ok {
		if tree, err := nodeOf(more.Detail); err == nil {
			problem = append(problem, member{"x-detail", tree})
		}
	}
	return objectOf(append(r.withID(nil), member{"error", objectOf(problem...)})...)
}

func (r request) withID(members []member, more ...member) []member {
	members = append(members, more...)
	if r.id != nil {
		members = append(members, member{"id", *r.id})
	}
	return members
}
