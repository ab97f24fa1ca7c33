package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
)

// qemuName is the name that turns the program into qemu-nbd.
const qemuName = "qemu-nbd"

// qemuMain is the program when called through a link of that name.
func qemuMain(c console, argv []string) int {
	o, err := parseQEMU(argv)
	switch {
	case errors.Is(err, errHelp):
		writeQEMUHelp(c.out)
		return 0
	case errors.Is(err, errVersion):
		writeQEMUVersion(c.out)
		return 0
	case err == nil && o.list:
		err = list(c, o)
	case err == nil:
		err = serve(c, o)
	}
	return report(c, doorQEMU, err)
}

// writeQEMUVersion keeps the shape of QEMU's first line, which is what programs look at.
func writeQEMUVersion(w io.Writer) {
	fmt.Fprintf(w, "%s %s (%s, %s)\n", qemuName, version, programName, runtime.Version())
}

func writeQEMUHelp(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s [OPTIONS] FILE\n  or:  %s -L [OPTIONS]\n%s in the part of qemu-nbd: serve a disk image over NBD\n", qemuName, qemuName, programName)
	writeOptions(w, doorQEMU)
}
