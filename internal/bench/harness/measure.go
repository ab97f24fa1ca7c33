package harness

import (
	"context"
	"fmt"
	"time"

	"nbd-dataplane/internal/bench/fio"
	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/proc"
	"nbd-dataplane/internal/bench/report"
	"nbd-dataplane/internal/bench/server"
)

// measurement takes one sample of a running server.
type measurement struct {
	// Immutable.
	workload   Workload
	server     *server.Instance
	duration   time.Duration
	warmUp     time.Duration
	rangeBytes int64
	syscalls   bool
	seed       uint64
}

// limits are how long the warm-up and the measurement take. Where the state of the disk is what is measured there is no warm-up, and all servers
// get as many requests.
func (m measurement) limits() (warmUp, measured loadgen.Limit) {
	if n := m.workload.requests(); n > 0 {
		return loadgen.Limit{}, loadgen.Limit{Requests: n}
	}
	return loadgen.Limit{Duration: m.warmUp}, loadgen.Limit{Duration: m.duration}
}

func (m measurement) run(ctx context.Context) (report.Sample, error) {
	if m.workload.Client == Fio {
		return m.fio(ctx)
	}
	return m.load()
}

// load drives the server with our own client. The connections stay open over warm-up,
// measurement and count, so that a server that forks for each keeps its processes.
func (m measurement) load() (report.Sample, error) {
	w := m.workload
	l, err := loadgen.Open(loadgen.Spec{
		URI: m.server.URI, Mode: w.Mode, ReadPercent: readPercent, Sequential: w.Sequential,
		BlockBytes: w.BlockBytes, Depth: w.Depth, Conns: w.Conns, RangeBytes: m.rangeBytes, Seed: m.seed,
		StepBytes: w.rule().stepBytes, FlushEvery: w.FlushEvery,
	})
	if err != nil {
		return report.Sample{}, err
	}
	defer l.Close()
	warmUp, measured := m.limits()
	if _, err := l.Run(warmUp); err != nil {
		return report.Sample{}, err
	}
	var r loadgen.Result
	cost, err := m.costOf(func() (client time.Duration, err error) {
		r, err = l.Run(measured)
		return r.ClientCPU, err
	})
	if err != nil {
		return report.Sample{}, err
	}
	sample := cost.sample(r.Requests())
	sample.IOPS, sample.MBps = r.IOPS(), r.BytesPerSecond()/1e6
	sample.P50us, sample.P99us = us(r.Percentile(50)), us(r.Percentile(99))
	sample.Syscalls, err = m.count(func() (int64, error) {
		r, err := l.Run(loadgen.Limit{Duration: countedTime})
		return r.Requests(), err
	})
	return sample, err
}

// fio drives the server with fio, which connects by itself. What connecting costs the
// server is part of the sample.
func (m measurement) fio(ctx context.Context) (report.Sample, error) {
	w := m.workload
	job := fio.Job{
		URI: m.server.URI, RW: w.fioPattern(), ReadPercent: readPercent, BlockBytes: w.BlockBytes,
		Depth: w.Depth, Conns: w.Conns, RangeBytes: m.rangeBytes, Duration: m.duration,
	}
	var r fio.Result
	cost, err := m.costOf(func() (client time.Duration, err error) {
		if r, err = fio.Run(ctx, job); err != nil {
			return 0, err
		}
		return r.CPU, m.childrenGone()
	})
	if err != nil {
		return report.Sample{}, err
	}
	sample := cost.sample(r.Requests)
	sample.IOPS, sample.MBps = r.IOPS, r.BytesPerSecond/1e6
	sample.P50us, sample.P99us = us(r.P50), us(r.P99)
	job.Duration = countedTime
	sample.Syscalls, err = m.count(func() (int64, error) {
		r, err := fio.Run(ctx, job)
		return r.Requests, err
	})
	return sample, err
}

// count returns the server's system calls per request while fn ran, or nil if they are
// not to be counted or cannot be (no rights, no tracepoints: a table shows "-").
func (m measurement) count(fn func() (int64, error)) (*float64, error) {
	if !m.syscalls {
		return nil, nil
	}
	c, err := proc.CountSyscalls(m.server.PID)
	if err != nil {
		return nil, nil
	}
	defer c.Close()
	before, err := c.Count()
	if err != nil {
		return nil, err
	}
	requests, err := fn()
	if err != nil {
		return nil, err
	}
	after, err := c.Count()
	if err != nil {
		return nil, err
	}
	calls := perRequest(float64(after-before), requests)
	return &calls, nil
}

const (
	childrenMax  = 5 * time.Second
	childrenStep = time.Millisecond
)

// childrenGone waits until a server that forks has collected its children, whose time is
// its own only then.
func (m measurement) childrenGone() error {
	for begin := time.Now(); ; time.Sleep(childrenStep) {
		pids, err := proc.Tree(m.server.PID)
		if err != nil || len(pids) == 1 {
			return err
		}
		if time.Since(begin) > childrenMax {
			return fmt.Errorf("%s still has processes for connections that are closed", m.server.Kind.Name)
		}
	}
}

func perRequest(v float64, requests int64) float64 { return v / float64(max(requests, 1)) }

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
