package subject

import "os"

// Environment sets the environment of the programs that tests start, for a TestMain. Notes of locks at NFS servers go to a directory of their own, as a program that
// is killed leaves them behind; what is returned removes it. A program that is built with the race detector does not sleep for a second at its end, in
// which goroutines that still run may be caught: more than a thousand are started, most of which run for some milliseconds.
func Environment() (remove func(), err error) {
	dir, err := os.MkdirTemp("", "nbd-state")
	if err != nil {
		return nil, err
	}
	os.Setenv("STATE_DIRECTORY", dir)
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return func() { os.RemoveAll(dir) }, nil
}
