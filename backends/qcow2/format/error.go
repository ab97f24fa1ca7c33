package format

import (
	"fmt"
	"syscall"
)

// Error is a structure that was refused, in QEMU's words.
type Error struct {
	Errno syscall.Errno
	Text  string
	Hint  string // a remedy, in a sentence; "" = none
}

func (e *Error) Error() string { return e.Text }

func (e *Error) Unwrap() error { return e.Errno }

func refuse(errno syscall.Errno, text string, args ...any) *Error {
	return &Error{Errno: errno, Text: fmt.Sprintf(text, args...)}
}
