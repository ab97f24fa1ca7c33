package qmp

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Class is the kind of an error as programs see it. Nearly all errors are of the generic one.
type Class string

// The classes of errors, by their names on the wire.
const (
	GenericError    Class = "GenericError"
	CommandNotFound Class = "CommandNotFound"
	DeviceNotActive Class = "DeviceNotActive"
	DeviceNotFound  Class = "DeviceNotFound"
)

// Error is what a command answers with when it has not been done. Any other error that a handler returns is answered
// as a GenericError with its text; one that wraps an Error keeps its class.
type Error struct {
	Class Class
	Desc  string
}

func (e *Error) Error() string { return e.Desc }

// Detailed is an error that says more than words: Detail goes to the client beside them, as "x-detail". QEMU has nothing like it, and its
// clients pass over it. From a Client, Detail is a json.RawMessage.
type Detailed struct {
	Err    error
	Detail any
}

func (e *Detailed) Error() string { return e.Err.Error() }

func (e *Detailed) Unwrap() error { return e.Err }

// Errorf is an error of the generic class.
func Errorf(format string, args ...any) error {
	return &Error{Class: GenericError, Desc: fmt.Sprintf(format, args...)}
}

// ErrorOf is the error as it goes to the client.
func ErrorOf(err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok {
		return &Error{Class: known.Class, Desc: err.Error()}
	}
	return &Error{Class: GenericError, Desc: err.Error()}
}

// Missing is the error about a parameter that is needed and not there.
func Missing(name string) error { return Errorf("Parameter '%s' is missing", name) }

// Unexpected is the error about a parameter that nobody knows.
func Unexpected(name string) error { return Errorf("Parameter '%s' is unexpected", name) }

// WrongType is the error about a parameter whose value is of another type than the one expected.
func WrongType(name, expected string) error {
	return Errorf("Invalid parameter type for '%s', expected: %s", name, expected)
}

// NotAccepted is the error about a value that is not in the list of an enumeration. QEMU names the parameter without
// those it is nested in.
func NotAccepted(name, value string) error {
	return Errorf("Parameter '%s' does not accept value '%s'", name, value)
}

// Expects is the error about a value of the right type that does not do: Expects("size", "a >0 size").
func Expects(name, what string) error { return Errorf("Parameter '%s' expects %s", name, what) }

// Strerror is the C library's text for the number of an error, which QEMU puts behind its own: Go's begin with a small letter.
func Strerror(errno syscall.Errno) string {
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
