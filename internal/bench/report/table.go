package report

import (
	"fmt"
	"io"
	"strings"
)

// table is text in columns, the first left-aligned, the others right-aligned.
type table struct {
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the rows with each column as wide as its widest cell.
func (t *table) print(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			if i == 0 {
				fmt.Fprintf(&line, "%-*s", widths[i], cell)
			} else {
				fmt.Fprintf(&line, "  %*s", widths[i], cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Print writes the table of one workload. The columns with an x divide by the best peer:
// more is better for IOPS, less for CPU. The last is how much of a processor somebody
// else used meanwhile; where it is large, the rest is worth little.
func Print(w io.Writer, title string, all []Series) error {
	best := BestPeer(all)
	t := &table{}
	t.add("", "IOPS", "min..max", "MB/s", "p50 us", "p99 us", "cpu us/req", "calls/req", "x IOPS", "x cpu", "other%")
	for _, s := range all {
		sum := s.Summarize()
		if !sum.HasValue {
			t.add(s.Server, "-")
			continue
		}
		t.add(s.Server, number(sum.IOPS.Median), number(sum.IOPS.Min)+".."+number(sum.IOPS.Max), number(sum.MBps),
			number(sum.P50us), number(sum.P99us), known(sum.CPUus, sum.CPUus > 0), known(sum.Syscalls, sum.SyscallsKnown),
			ratio(sum.IOPS.Median, best.IOPS), ratio(sum.CPUus, best.CPUus),
			fmt.Sprintf("%.0f", sum.OtherCPU))
	}
	if _, err := fmt.Fprintf(w, "\n%s\n", title); err != nil {
		return err
	}
	return t.print(w)
}

// number writes v with about three digits that mean something.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func known(v float64, ok bool) string {
	if !ok {
		return "-"
	}
	return number(v)
}

func ratio(a, b float64) string {
	r, ok := Ratio(a, b)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f", r)
}
