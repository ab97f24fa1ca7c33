package report

import "slices"

// Sample is one measurement of one server.
type Sample struct {
	Round    int      `json:"round"`
	IOPS     float64  `json:"iops"`
	MBps     float64  `json:"mbps"` // 10^6 bytes
	P50us    float64  `json:"p50_us"`
	P99us    float64  `json:"p99_us"`
	CPUus    float64  `json:"server_cpu_us"`      // processor time of the server, per request
	Syscalls *float64 `json:"syscalls,omitempty"` // of the server, per request; nil: not counted
	ClientUs float64  `json:"client_cpu_us"`      // processor time of the client, per request
	OtherCPU float64  `json:"other_cpu_percent"`  // of one processor, spent meanwhile by neither
}

// Series is the samples of one server under one workload.
type Series struct {
	Server string `json:"server"`
	Ours   bool   `json:"ours"`
	Peer   bool   `json:"peer"`
	// RevisionOf is the server that this is another revision of.
	RevisionOf string   `json:"revision_of,omitempty"`
	Samples    []Sample `json:"samples"`
}

// Spread is the median of some values with the least and the greatest.
type Spread struct {
	Median, Min, Max float64
}

// SpreadOf returns the spread of values; that of none is zero.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return Spread{Median: median, Min: s[0], Max: s[len(s)-1]}
}

// Summary is what a table says of a series.
type Summary struct {
	IOPS                    Spread
	MBps, P50us, P99us      float64 // medians
	CPUus, ClientUs         float64
	OtherCPU                float64
	Syscalls                float64
	SyscallsKnown, HasValue bool
}

// Summarize takes the medians of a series.
func (s Series) Summarize() Summary {
	pick := func(field func(Sample) float64) Spread {
		values := make([]float64, len(s.Samples))
		for i, sample := range s.Samples {
			values[i] = field(sample)
		}
		return SpreadOf(values)
	}
	sum := Summary{
		IOPS:     pick(func(s Sample) float64 { return s.IOPS }),
		MBps:     pick(func(s Sample) float64 { return s.MBps }).Median,
		P50us:    pick(func(s Sample) float64 { return s.P50us }).Median,
		P99us:    pick(func(s Sample) float64 { return s.P99us }).Median,
		CPUus:    pick(func(s Sample) float64 { return s.CPUus }).Median,
		ClientUs: pick(func(s Sample) float64 { return s.ClientUs }).Median,
		OtherCPU: pick(func(s Sample) float64 { return s.OtherCPU }).Median,
		HasValue: len(s.Samples) > 0,
	}
	var calls []float64
	for _, sample := range s.Samples {
		if sample.Syscalls != nil {
			calls = append(calls, *sample.Syscalls)
		}
	}
	sum.Syscalls, sum.SyscallsKnown = SpreadOf(calls).Median, len(calls) > 0
	return sum
}

// Best is the best that any peer reached, each figure for itself: the fastest peer need
// not be the one that costs least, and the comparison is with both.
type Best struct {
	IOPS, CPUus float64 // 0: there was no peer
	Fastest     string
}

// BestPeer looks over the peers of a workload.
func BestPeer(all []Series) Best {
	var b Best
	for _, s := range all {
		sum := s.Summarize()
		if !s.Peer || !sum.HasValue {
			continue
		}
		if sum.IOPS.Median > b.IOPS {
			b.IOPS, b.Fastest = sum.IOPS.Median, s.Server
		}
		if sum.CPUus > 0 && (b.CPUus == 0 || sum.CPUus < b.CPUus) {
			b.CPUus = sum.CPUus
		}
	}
	return b
}

// Ratio is a/b, and whether it means anything.
func Ratio(a, b float64) (float64, bool) {
	if a <= 0 || b <= 0 {
		return 0, false
	}
	return a / b, true
}
