package control

import (
	"errors"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// malformed is an error about the form of a description: a type, a name that nobody knows, a value that is not in a list. QEMU finds those at a monitor
// before it opens anything; here whoever opens the node does.
type malformed struct{ err error }

func (e *malformed) Error() string { return e.err.Error() }
func (e *malformed) Unwrap() error { return e.err }

// Malformed marks an error as one about the form of a description. nil stays nil.
func Malformed(err error) error {
	if err == nil {
		return nil
	}
	return &malformed{err}
}

// bare leaves out of an error about form what was being opened when it was found.
func bare(err error) error {
	if m, is := errors.AsType[*malformed](err); is {
		return m.err
	}
	return err
}

// NamedChild is Child with a description that an image has, whose form nobody has seen before the image was open.
func (o *Opening) NamedChild(role blockcore.Role, v qmp.Value) error {
	_, err := o.Child(role, v)
	if _, is := errors.AsType[*malformed](err); is {
		return qmp.ErrorOf(err)
	}
	return err
}

// noReference is the error about a child that is neither the name of a node nor a description.
func noReference(role blockcore.Role, v qmp.Value) error {
	expected := "BlockdevRef"
	if role == blockcore.RoleBacking {
		expected = "BlockdevRefOrNull"
	}
	return Malformed(v.WrongType(expected))
}
