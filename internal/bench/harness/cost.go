package harness

import (
	"time"

	"nbd-dataplane/internal/bench/proc"
	"nbd-dataplane/internal/bench/report"
)

// cost is processor time used while a run lasted.
type cost struct {
	server, client, all, elapsed time.Duration
}

// costOf measures what fn, which returns the time of the client, costs.
func (m measurement) costOf(fn func() (client time.Duration, err error)) (cost, error) {
	server, all, err := m.clocks()
	if err != nil {
		return cost{}, err
	}
	begin := time.Now()
	client, err := fn()
	if err != nil {
		return cost{}, err
	}
	elapsed := time.Since(begin)
	serverEnd, allEnd, err := m.clocks()
	return cost{server: serverEnd - server, client: client, all: allEnd - all, elapsed: elapsed}, err
}

func (m measurement) clocks() (server, all time.Duration, err error) {
	if server, err = proc.CPU(m.server.PID); err != nil {
		return 0, 0, err
	}
	all, err = proc.Busy()
	return server, all, err
}

// sample writes the cost down, per request where that is the question.
func (c cost) sample(requests int64) report.Sample {
	other := max(c.all-c.server-c.client, 0)
	return report.Sample{
		CPUus:    perRequest(us(c.server), requests),
		ClientUs: perRequest(us(c.client), requests),
		OtherCPU: 100 * float64(other) / float64(max(c.elapsed, 1)),
	}
}
