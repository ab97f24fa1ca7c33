package harness

import (
	"fmt"

	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/report"
	"nbd-dataplane/internal/bench/server"
)

// Client is who drives the server.
type Client string

// The clients.
const (
	Load Client = "load" // package loadgen: batches, so that the server is the limit
	Fio  Client = "fio"  // fio's nbd engine: one send a request
)

const readPercent = 70 // of mixed workloads, as fio's and most published figures have it

// Workload is one row of the matrix.
type Workload struct {
	Client     Client
	Storage    server.Storage
	Mode       loadgen.Mode
	Sequential bool
	BlockBytes int
	Depth      int
	Conns      int
	Layout     Layout // of Qcow2
	FlushEvery int    // a FLUSH after so many writes; 0 = never
}

// Name names the workload, for tables and for choosing: load/cached/4k-randread-d32-c1.
func (w Workload) Name() string {
	storage := string(w.Storage)
	if w.Storage == server.Qcow2 {
		storage += "-" + string(w.Layout)
	}
	pattern := w.pattern()
	if w.FlushEvery > 0 {
		pattern += fmt.Sprintf("-flush%d", w.FlushEvery)
	}
	return fmt.Sprintf("%s/%s/%s-%s-d%d-c%d", w.Client, storage, size(w.BlockBytes), pattern, w.Depth, w.Conns)
}

// pattern is the kind of requests, spelled as fio does except for mixed.
func (w Workload) pattern() string {
	if w.Sequential {
		return "seq" + w.Mode.String()
	}
	return "rand" + w.Mode.String()
}

// fioPattern is the same in fio's spelling.
func (w Workload) fioPattern() string {
	name := w.Mode.String()
	if w.Mode == loadgen.Mixed {
		name = "rw"
	}
	if w.Sequential {
		return name
	}
	return "rand" + name
}

func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%dm", n>>20)
	}
	return fmt.Sprintf("%dk", n>>10)
}

// writes reports whether the workload changes the file.
func (w Workload) writes() bool { return w.Mode != loadgen.Read }

// Target is what our server has to reach, as ratio to the best peer.
func (w Workload) Target() report.Target {
	switch {
	case w.Storage == server.Qcow2:
		return w.targetQcow2()
	case w.Storage == server.NFS:
		return w.targetNFS()
	case w.Client == Fio:
		return report.Target{IOPSRatioMin: 1}
	case w.Sequential:
		return report.Target{IOPSRatioMin: 1.3}
	case w.Depth == 1:
		return report.Target{IOPSRatioMin: 1.2}
	case w.Depth == 32:
		return report.Target{IOPSRatioMin: 2, CPURatioMax: 0.5, SyscallsMax: 0.5}
	}
	return report.Target{}
}

// targetQcow2 is what a driver of an image format has to reach.
func (w Workload) targetQcow2() report.Target {
	t := report.Target{IOPSRatioMin: 1.1, CPURatioMax: 0.5}
	switch {
	case w.Layout == Full && w.Depth == 32 && !w.Sequential:
		t.IOPSRatioMin = 2
	case w.Layout == Empty:
		t.IOPSRatioMin = 1.5
	}
	return t
}
