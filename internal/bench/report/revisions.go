package report

import (
	"fmt"
	"io"
	"math"
)

// Change compares a server with the same one of another revision, under one workload.
type Change struct {
	Workload, Server, Revision string
	IOPS, CPU                  Spread // of the quotients of each round, so that what slows all servers down for a while counts little
}

// Changes finds the servers of a workload that were measured in two revisions.
func Changes(workload string, all []Series) []Change {
	var changes []Change
	for _, then := range all {
		for _, now := range all {
			if then.RevisionOf != now.Server || then.RevisionOf == "" {
				continue
			}
			c := Change{Workload: workload, Server: now.Server, Revision: then.Server}
			c.IOPS = quotients(now, then, func(s Sample) float64 { return s.IOPS })
			c.CPU = quotients(now, then, func(s Sample) float64 { return s.CPUus })
			changes = append(changes, c)
		}
	}
	return changes
}

func quotients(now, then Series, pick func(Sample) float64) Spread {
	var all []float64
	for i := range min(len(now.Samples), len(then.Samples)) {
		if r, ok := Ratio(pick(now.Samples[i]), pick(then.Samples[i])); ok {
			all = append(all, r)
		}
	}
	return SpreadOf(all)
}

// PrintChanges writes what has changed from one revision to the other, and the geometric mean of all.
func PrintChanges(w io.Writer, all []Change) error {
	if len(all) == 0 {
		return nil
	}
	t := &table{}
	t.add("workload", "server", "revision", "x IOPS", "min..max", "x cpu", "min..max")
	iops, cpu := 0.0, 0.0
	counted := 0
	for _, c := range all {
		t.add(c.Workload, c.Server, c.Revision, quotient(c.IOPS.Median), between(c.IOPS), quotient(c.CPU.Median), between(c.CPU))
		if c.IOPS.Median > 0 && c.CPU.Median > 0 {
			iops += math.Log(c.IOPS.Median)
			cpu += math.Log(c.CPU.Median)
			counted++
		}
	}
	if counted > 0 {
		n := float64(counted)
		t.add("geometric mean", "", "", quotient(math.Exp(iops/n)), "", quotient(math.Exp(cpu/n)), "")
	}
	if _, err := fmt.Fprintln(w, "\nAgainst the other revision: more is better for IOPS, less for CPU"); err != nil {
		return err
	}
	return t.print(w)
}

func quotient(v float64) string { return known(v, v > 0) }

func between(s Spread) string {
	if s.Max == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f..%.2f", s.Min, s.Max)
}
