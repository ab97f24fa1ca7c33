package main

import (
	"errors"
	"strings"

	"nbd-dataplane/internal/keyval"
)

// usageError is a mistake on the command line, worded for both doors. Ours names the thing and the remedy in one line;
// the other is QEMU's, which scripts look for.
type usageError struct {
	own  string
	qemu string // empty = as own
	// hint is what qemu is followed by where people read it, on a line of its own; empty = nothing.
	hint string
	// see makes our door point at the help, for mistakes that show that somebody looks for an option.
	see bool
	// plain is set where qemu begins with the program's name.
	plain bool
	// cause is who has the lock, for monitors; nil = it is no matter of locks.
	cause error
}

func (e *usageError) Error() string { return e.own }

func (e *usageError) Unwrap() error { return e.cause }

// wrong returns a usageError.
func wrong(own, qemu string) error { return &usageError{own: own, qemu: qemu} }

// ownText is err in one line.
func ownText(err error) string {
	text := err.Error()
	var param *keyval.Error
	if errors.As(err, &param) && param.Hint != "" {
		text += ". " + param.Hint
	}
	var usage *usageError
	if errors.As(err, &usage) && usage.see {
		text += "; see '" + programName + " serve --help'"
	}
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", " ")
}

// qemuLine is what qemu-nbd prints for err.
func qemuLine(err error) string {
	var usage *usageError
	if errors.As(err, &usage) && usage.plain {
		return usage.qemu
	}
	return qemuName + ": " + qemuText(err)
}

// qemuText is err in QEMU's words, as far as there are such; a hint follows on a line of its own.
func qemuText(err error) string {
	var usage *usageError
	isUsage := errors.As(err, &usage)
	if _, done := errors.AsType[*worded](err); done { // of a node below, and what those above it say of that is in QEMU's words too
		text := err.Error()
		if isUsage && usage.hint != "" {
			text += "\n" + usage.hint
		}
		return text
	}
	if isUsage && usage.hint != "" {
		return usage.qemu + "\n" + usage.hint
	}
	if errors.As(err, &usage) && usage.qemu != "" {
		return usage.qemu
	}
	var param *keyval.Error
	if errors.As(err, &param) && param.Hint != "" {
		return err.Error() + "\n" + param.Hint
	}
	return err.Error()
}
