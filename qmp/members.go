package qmp

// Members are the names of an object's members, in their order.
func (v Value) Members() []string {
	var names []string
	for _, m := range v.node.members {
		names = append(names, m.name)
	}
	return names
}

// Member is the member of that name; the zero Value if there is none.
func (v Value) Member(name string) Value {
	n, found := v.node.member(name)
	if !found {
		return Value{}
	}
	return v.child(name, n)
}
