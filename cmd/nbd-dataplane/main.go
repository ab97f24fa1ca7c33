package main

import (
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
	c := console{out: os.Stdout, err: newPatientWriter(os.Stderr)}
	switch filepath.Base(os.Args[0]) {
	case qemuName:
		os.Exit(qemuMain(c, os.Args))
	case qsdName:
		os.Exit(qsdMain(c, os.Args))
	}
	os.Exit(ownMain(c, os.Args[1:]))
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
