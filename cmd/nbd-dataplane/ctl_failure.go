package main

import (
	"errors"
	"fmt"
)

// The statuses that ctl exits with, besides 0.
const (
	statusFailed      = 1 // the server refused, or something else went wrong
	statusUsage       = 2 // the command line
	statusUnreachable = 3 // no server, or it went away
	statusNotFound    = 4 // what was named is not there
	statusInUse       = 5 // what was named is in use
	statusBusy        = 6 // requests in flight did not end in time
)

// The statuses of "drain -- CMD" that are not CMD's, as env, nohup and timeout have them.
const (
	statusSectionLost = 125 // requests ran again before CMD had ended
	statusNotRunnable = 126
	statusNoCommand   = 127
)

// failure is an error with a status to exit with.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

func usageFailure(err error) error {
	if err == nil {
		return nil
	}
	return &failure{statusUsage, err}
}

func usagef(format string, args ...any) error {
	return &failure{statusUsage, fmt.Errorf(format, args...)}
}

func unreachable(format string, args ...any) error {
	return &failure{statusUnreachable, fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &failure{statusNotFound, fmt.Errorf(format, args...)}
}

// statusOfError is what to exit with after err has been told.
func statusOfError(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	return statusFailed
}
