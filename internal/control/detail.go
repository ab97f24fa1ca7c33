package control

import (
	"context"
	"errors"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// detail is what an error says to programs, so that they need not look into its words.
type detail struct {
	// Reason is "drain-timeout", "in-use" or "disk".
	Reason   string    `json:"reason"`
	AfterMS  int64     `json:"after-ms,omitempty"`
	Culprits []culprit `json:"culprits,omitempty"`
	// Where is what the disk has refused, and where it was, or which image is in use: the error has QEMU's words, which leave that out.
	Where string `json:"where,omitempty"`
}

// culprit is something that a drain has waited for in vain: a request, or what is described in words.
type culprit struct {
	requestInfo
	What  string `json:"what,omitempty"`
	Stack string `json:"stack,omitempty"`
}

// detailed adds to the errors of every command what programs want to know of them.
func detailed(table []qmp.Command) []qmp.Command {
	for i := range table {
		do := table[i].Handler
		table[i].Handler = func(ctx context.Context, call *qmp.Call) (any, error) {
			result, err := do(ctx, call)
			return result, withDetail(err)
		}
	}
	return table
}

// locked is an error about a lock that somebody else has, with a hint for people.
type locked interface {
	error
	Message() string
	Hint() string
}

func withDetail(err error) error {
	var lock locked
	if errors.As(err, &lock) {
		if _, worded := errors.AsType[*qmp.Error](err); !worded {
			err = qmp.Errorf("%s", lock.Message())
		}
		return &qmp.Detailed{Err: err, Detail: detail{Reason: "in-use", Where: lock.Hint()}}
	}
	if drain, ok := errors.AsType[*blockcore.DrainError](err); ok {
		d := detail{Reason: "drain-timeout", AfterMS: drain.After.Milliseconds()}
		d.Culprits = describeCulprits(drain.Culprits)
		return &qmp.Detailed{Err: err, Detail: d}
	}
	if refused, ok := errors.AsType[*diskRefusal](err); ok {
		return &qmp.Detailed{Err: err, Detail: detail{Reason: "disk", Where: refused.cause.Error()}}
	}
	if _, ok := errors.AsType[*nbd.ErrInUse](err); ok {
		return &qmp.Detailed{Err: err, Detail: detail{Reason: "in-use"}}
	}
	return err
}

// inUse refuses what cannot be done while somebody uses what was named.
func inUse(format string, args ...any) error {
	return &qmp.Detailed{Err: qmp.Errorf(format, args...), Detail: detail{Reason: "in-use"}}
}

func describeCulprits(all []blockcore.Culprit) []culprit {
	list := []culprit{}
	for _, c := range all {
		list = append(list, culprit{describeRequest(c.Request), c.What, c.Stack})
	}
	return list
}
