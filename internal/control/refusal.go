package control

import (
	"errors"
	"strings"
	"syscall"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// diskRefusal is what the disk has refused while a command was done. Monitors are told so in QEMU's words, which leave out where it was: that is in the detail, and in
// the log, whose line is that of the change that was not made.
type diskRefusal struct {
	words string
	cause error
}

func (e *diskRefusal) Error() string { return e.words }

func (e *diskRefusal) Unwrap() error { return e.cause }

// refusedBy puts an error of the disk in QEMU's words: the step in which a driver met it, or what is said of a flush that came before. Any other error is returned as
// it is.
func refusedBy(err error, unflushed string) error {
	if step, is := errors.AsType[*blockcore.StepFailure](err); is {
		return refusedDoing(step.Step, err)
	}
	if _, is := errors.AsType[*blockcore.FlushFailure](err); is {
		return refusedDoing(unflushed, err)
	}
	return err
}

// refusedDoing is an error of the disk behind what could not be done.
func refusedDoing(doing string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return qmp.Errorf("%s: %v", doing, err)
	}
	return &diskRefusal{doing + ": " + qmp.Strerror(errno), err}
}

// unflushed is what QEMU says when a disk cannot be flushed before an overlay comes on top: it says no number.
func unflushed(err error) error {
	if _, is := errors.AsType[*blockcore.FlushFailure](err); is {
		return &diskRefusal{"An IO error has occurred", err}
	}
	return err
}

// refusal is what a driver says of a size that it does not take, less the number behind it, which QEMU leaves out.
func refusal(err error) error {
	for _, errno := range []syscall.Errno{syscall.ENOTSUP, syscall.EINVAL} {
		if said, is := strings.CutSuffix(err.Error(), ": "+errno.Error()); is && errors.Is(err, errno) {
			return qmp.Errorf("%s", said)
		}
	}
	return err
}

// RefusedByDisk returns what the disk has refused, and where, if that is why a change was not made; else nil. Safe from anywhere.
func RefusedByDisk(err error) error {
	if refused, is := errors.AsType[*diskRefusal](err); is {
		return refused.cause
	}
	_, inStep := errors.AsType[*blockcore.StepFailure](err)
	_, inFlush := errors.AsType[*blockcore.FlushFailure](err)
	if inStep || inFlush {
		return err
	}
	return nil
}
