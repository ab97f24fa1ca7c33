package harness

import (
	"fmt"
	"io"
	"time"

	"nbd-dataplane/internal/bench/server"
)

// Options are the user's choices.
type Options struct {
	Workloads []Workload
	Servers   []server.Kind
	Rounds    int
	Duration  time.Duration // of each timed run
	WarmUp    time.Duration // our client's before that, on the same connections; not counted
	Dir       string        // where the file goes; on a real file system
	FileBytes int64
	Syscalls  bool // count them, in a run of their own in the first round
	Programs  server.Programs

	Out      io.Writer // tables
	Progress io.Writer // a line a sample
}

const (
	countedTime = 250 * time.Millisecond // the run whose system calls are counted

	roundsMax = 1000
)

func (o Options) validate() error {
	switch {
	case o.Rounds < 1 || o.Rounds > roundsMax:
		return fmt.Errorf("%d rounds: want 1 to %d", o.Rounds, roundsMax)
	case o.Duration <= 0:
		return fmt.Errorf("runs of %v: want more", o.Duration)
	case o.WarmUp < 0:
		return fmt.Errorf("a warm-up of %v: want 0 or more", o.WarmUp)
	case o.FileBytes < 16<<20:
		return fmt.Errorf("a file of %d bytes: want at least 16 MiB", o.FileBytes)
	case len(o.Servers) == 0:
		return fmt.Errorf("no server was chosen")
	}
	return nil
}
