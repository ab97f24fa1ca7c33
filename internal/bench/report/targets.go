package report

import (
	"fmt"
	"io"
)

// Target is what our server is to reach under a workload, against the best peer. Zero
// fields ask for nothing.
type Target struct {
	IOPSRatioMin float64
	CPURatioMax  float64
	SyscallsMax  float64 // per request
}

// Verdict is one line of the comparison with the targets.
type Verdict struct {
	Workload, Server       string
	Fastest                string // peer
	IOPS, CPU, Calls       string // figure and target
	Missed                 bool
	comparable, hasTargets bool
}

// Judge compares one of our series with the peers of its workload.
func Judge(workload string, ours Series, all []Series, t Target) Verdict {
	best, sum := BestPeer(all), ours.Summarize()
	v := Verdict{Workload: workload, Server: ours.Server, Fastest: best.Fastest, hasTargets: t != Target{}}
	iops, okIOPS := Ratio(sum.IOPS.Median, best.IOPS)
	cpu, okCPU := Ratio(sum.CPUus, best.CPUus)
	v.comparable = okIOPS
	v.IOPS = v.against(iops, okIOPS, t.IOPSRatioMin, iops >= t.IOPSRatioMin, ">=")
	v.CPU = v.against(cpu, okCPU, t.CPURatioMax, cpu <= t.CPURatioMax, "<=")
	v.Calls = v.against(sum.Syscalls, sum.SyscallsKnown, t.SyscallsMax, sum.Syscalls <= t.SyscallsMax, "<=")
	return v
}

// against writes a figure with its target, and notes when it is missed.
func (v *Verdict) against(value float64, ok bool, target float64, met bool, sign string) string {
	switch {
	case !ok:
		return "-"
	case target == 0:
		return fmt.Sprintf("%.2f", value)
	case !met:
		v.Missed = true
		return fmt.Sprintf("%.2f !%s%.2g", value, sign, target)
	}
	return fmt.Sprintf("%.2f  %s%.2g", value, sign, target)
}

// PrintVerdicts writes the comparison with the targets; a figure that misses its target
// carries a "!".
func PrintVerdicts(w io.Writer, all []Verdict) error {
	t := &table{}
	t.add("workload", "server", "x IOPS of best peer", "x cpu of best peer", "calls/req", "fastest peer")
	missed, judged := 0, 0
	for _, v := range all {
		if !v.comparable {
			continue
		}
		t.add(v.Workload, v.Server, v.IOPS, v.CPU, v.Calls, v.Fastest)
		if v.hasTargets {
			judged++
		}
		if v.Missed {
			missed++
		}
	}
	if _, err := fmt.Fprintf(w, "\nTargets: %d of %d workloads meet theirs\n", judged-missed, judged); err != nil {
		return err
	}
	return t.print(w)
}
