package loadgen

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	latencyMaxNs  = int64(2 * time.Minute)
	latencyDigits = 3 // significant decimal digits of a recorded latency
)

// Limit ends a run: after Requests if that is set (of all connections together), else
// after Duration.
type Limit struct {
	Requests int64
	Duration time.Duration
}

// Result is what a run did. Everything that was answered counts, and Elapsed lasts until
// the last answer, so the two fit together.
type Result struct {
	Reads     int64
	Writes    int64
	Flushes   int64
	Bytes     int64 // of payload, both ways
	Elapsed   time.Duration
	ClientCPU time.Duration           // of the threads of the load
	Latency   *hdrhistogram.Histogram // nanoseconds, from queueing to the end of the answer
}

// Requests returns how many requests were answered.
func (r Result) Requests() int64 { return r.Reads + r.Writes + r.Flushes }

// IOPS returns the requests answered per second.
func (r Result) IOPS() float64 { return perSecond(r.Requests(), r.Elapsed) }

// BytesPerSecond returns the payload moved per second.
func (r Result) BytesPerSecond() float64 { return perSecond(r.Bytes, r.Elapsed) }

// Percentile returns the latency that p percent of the requests did not exceed.
func (r Result) Percentile(p float64) time.Duration {
	return time.Duration(r.Latency.ValueAtPercentile(p))
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// merge adds what another connection did in the same run.
func (r *Result) merge(o Result) {
	r.Reads += o.Reads
	r.Writes += o.Writes
	r.Flushes += o.Flushes
	r.Bytes += o.Bytes
	r.ClientCPU += o.ClientCPU
	r.Elapsed = max(r.Elapsed, o.Elapsed)
	r.Latency.Merge(o.Latency)
}
