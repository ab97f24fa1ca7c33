package main

import (
	"os"
	"runtime/debug"
)

// garbagePercent is how much a heap may grow before its garbage is collected, in percent of what lives, or of 4 MiB. A collection takes
// some hundred microseconds from the loops. What lives on the heap of a server is little, as the buffers of requests are elsewhere.
const garbagePercent = 400

// collectSeldom is for a process that serves. GOGC, if somebody has set it, stands.
func collectSeldom() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}
