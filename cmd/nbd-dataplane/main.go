package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// programName is what our own door calls itself in messages.
const programName = "nbd-dataplane"

// version is set by the linker for releases.
var version = "0.1.0-dev"

// console is where a run of the program speaks to people; tests put buffers here.
type console struct {
	out, err io.Writer
}

// warn tells of what is odd and no error.
func (c console) warn(text string) { fmt.Fprintf(c.err, "%s: warning: %s\n", programName, text) }

func main() {
	told := &toldWriter{to: os.Stdout}
	c := console{out: told, err: newPatientWriter(os.Stderr)}
	switch filepath.Base(os.Args[0]) {
	case qemuName:
		os.Exit(qemuMain(c, os.Args))
	case qsdName:
		os.Exit(qsdMain(c, os.Args))
	}
	os.Exit(told.status(c, ownMain(c, os.Args[1:])))
}

// toldWriter is a standard output that remembers whether all of it was taken: who keeps an answer in a file has to learn that it is not there.
type toldWriter struct {
	to  io.Writer
	err error // the first one; the goroutine of main alone writes
}

// Write implements io.Writer.
func (w *toldWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.err = cmp.Or(w.err, err)
	return n, err
}

// status is what to exit with, where it would be status if all was told.
func (w *toldWriter) status(c console, status int) int {
	if status != 0 || w.err == nil {
		return status
	}
	return report(c, doorServe, fmt.Errorf("standard output: %w", w.err))
}

// unheard reports whether something that was told is lost: it is of no use to go on then.
func (c console) unheard() bool {
	w, ok := c.out.(*toldWriter)
	return ok && w.err != nil
}

// exitStatus is an error that is only a status: what there was to say has been said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// report prints err as door words it and returns the status to exit with.
func report(c console, d door, err error) int {
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case d == doorQEMU:
		fmt.Fprintln(c.err, qemuLine(err))
	case d == doorQSD:
		fmt.Fprintln(c.err, qsdName+": "+qemuText(err))
	default:
		fmt.Fprintln(c.err, programName+": "+ownText(err))
	}
	return statusOfError(err)
}
