package harness

import (
	"fmt"

	"nbd-dataplane/internal/bench/report"
)

// printScaling compares, for our servers, each workload over several connections with the
// same over one: an export must not get slower because a client opens more of them.
func printScaling(o Options, all []Comparison) error {
	single := map[Workload]Comparison{}
	for i, c := range all {
		if w := o.Workloads[i]; w.Conns == 1 {
			single[w] = c
		}
	}
	for i, c := range all {
		w := o.Workloads[i]
		w.Conns = 1
		one, ok := single[w]
		if !ok || o.Workloads[i].Conns == 1 {
			continue
		}
		for _, line := range scaling(one, c) {
			if _, err := fmt.Fprintf(o.Out, "%s: %s\n", c.Workload, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// scaling says for each of our servers how many compares with one.
func scaling(one, many Comparison) []string {
	var lines []string
	for i, s := range many.Series {
		if !s.Ours {
			continue
		}
		r, ok := report.Ratio(s.Summarize().IOPS.Median, one.Series[i].Summarize().IOPS.Median)
		if !ok {
			continue
		}
		mark := ""
		if r < 1 {
			mark = " !>=1"
		}
		lines = append(lines, fmt.Sprintf("%s reaches %.2f times the IOPS of one connection%s", s.Server, r, mark))
	}
	return lines
}
