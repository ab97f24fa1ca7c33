package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/proc"
	"nbd-dataplane/internal/bench/report"
	"nbd-dataplane/internal/bench/server"
)

const (
	idleTargetMiB = 64
	readyTargetMs = 50

	pause      = 500 * time.Millisecond // that connections rest before memory is read
	filesSpare = 200                    // descriptors beside those of the connections
	smallFile  = int64(64 << 20)        // what is served where the size does not matter
)

// Idle is the memory of a server whose clients do nothing.
type Idle struct {
	Server    string  `json:"server"`
	Conns     int     `json:"connections"`
	BeforeMiB float64 `json:"rss_before_mib"` // with no connection
	RSSMiB    float64 `json:"rss_mib"`
}

// Startup is how long a server takes from the start of its process to its greeting.
type Startup struct {
	Server string    `json:"server"`
	Ms     []float64 `json:"ms"`
}

// MeasureIdle negotiates conns connections with each server, leaves them alone, and
// reads the server's memory.
func MeasureIdle(ctx context.Context, o Options, conns int) ([]Idle, error) {
	if err := raiseFiles(uint64(conns + filesSpare)); err != nil {
		return nil, err
	}
	var all []Idle
	for _, k := range o.Servers {
		var one Idle
		err := withServer(ctx, o, k, func(in *server.Instance) (err error) {
			one, err = idle(in, conns)
			return err
		})
		if err != nil {
			return all, fmt.Errorf("%d idle connections, %s: %w", conns, k.Name, err)
		}
		all = append(all, one)
		fmt.Fprintf(o.Out, "%-22s %d idle connections: %.1f MiB resident (%.1f MiB without)%s\n",
			k.Name, conns, one.RSSMiB, one.BeforeMiB, verdict(k, one.RSSMiB < idleTargetMiB, "64 MiB"))
	}
	return all, nil
}

func idle(in *server.Instance, conns int) (Idle, error) {
	one := Idle{Server: in.Kind.Name, Conns: conns}
	before, err := proc.RSS(in.PID)
	if err != nil {
		return one, err
	}
	l, err := loadgen.Open(loadgen.Spec{URI: in.URI, BlockBytes: 4096, Depth: 1, Conns: conns})
	if err != nil {
		return one, err
	}
	defer l.Close()
	time.Sleep(pause)
	after, err := proc.RSS(in.PID)
	one.BeforeMiB, one.RSSMiB = mib(before), mib(after)
	return one, err
}

// MeasureStartup starts each server some times in turn and notes when it greets.
func MeasureStartup(ctx context.Context, o Options, times int) ([]Startup, error) {
	all := make([]Startup, len(o.Servers))
	for range times {
		for i, k := range o.Servers {
			all[i].Server = k.Name
			err := withServer(ctx, o, k, func(in *server.Instance) error {
				all[i].Ms = append(all[i].Ms, float64(in.Ready)/float64(time.Millisecond))
				return nil
			})
			if err != nil {
				return all, fmt.Errorf("starting %s: %w", k.Name, err)
			}
		}
	}
	for i, k := range o.Servers {
		s := report.SpreadOf(all[i].Ms)
		fmt.Fprintf(o.Out, "%-22s ready %.1f ms after its start (%.1f..%.1f, %d starts)%s\n",
			k.Name, s.Median, s.Min, s.Max, times, verdict(k, s.Median < readyTargetMs, "50 ms"))
	}
	return all, nil
}

func verdict(k server.Kind, met bool, target string) string {
	switch {
	case !k.Ours:
		return ""
	case met:
		return "  < " + target
	}
	return "  !< " + target
}

// withServer runs fn on a server of a small sparse file.
func withServer(ctx context.Context, o Options, k server.Kind, fn func(*server.Instance) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nbd-bench-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "disk.img")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, smallFile)); err != nil {
		return fmt.Errorf("creating the file to serve: %w", err)
	}
	storage := server.Cached
	if !k.Serves(storage) {
		storage = server.Null
	}
	in, err := server.Start(k, server.Setup{Storage: storage, File: file, SizeBytes: smallFile, Dir: dir, Programs: o.Programs})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Stop()) }()
	return fn(in)
}

// raiseFiles lets us, and the servers we start, have so many open files.
func raiseFiles(n uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of open files: %w", err)
	}
	if limit.Max < n {
		return fmt.Errorf("the limit of open files is %d, and %d are needed: raise it with ulimit -Hn", limit.Max, n)
	}
	limit.Cur = max(limit.Cur, n)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit of open files: %w", err)
	}
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
