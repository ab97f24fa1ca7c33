package offline

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// verdict is our check in the form of qemu-img's.
func verdict(t testing.TB, path string, repair Repair) qcowtest.Verdict {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var said []string
	say := func(line string) { said = append(said, line+"\n") }
	report, status := checkTwice(t, f, CheckOptions{Repair: repair, Say: say})
	return qcowtest.Verdict{Status: status, Figures: qcowtest.CheckResult(report), Said: strings.Join(said, "")}
}

// checkTwice checks as qemu-img does: after a repair once more, to see what is left.
func checkTwice(t testing.TB, f *os.File, o CheckOptions) (Report, int) {
	t.Helper()
	run := func(o CheckOptions) (Report, error) {
		im, err := Open(Disk{f}, format.ForCheck)
		if err != nil {
			return Report{}, err
		}
		return im.Check(o)
	}
	report, err := run(o)
	if err == nil && (report.LeaksFixed > 0 || report.CorruptionsFixed > 0) {
		var again Report
		again, err = run(CheckOptions{Say: o.Say})
		again.LeaksFixed, again.CorruptionsFixed = report.LeaksFixed, report.CorruptionsFixed
		report = again
	}
	switch {
	case err != nil:
		t.Logf("our check ends: %v", err)
		return report, 1
	case report.CheckErrors > 0:
		return report, 1
	case report.Corruptions > 0:
		return report, 2
	case report.Leaks > 0:
		return report, 3
	}
	return report, 0
}

// sameVerdict compares two verdicts; the order of what is said does not matter, nor how often. QEMU marks the image as corrupt where we
// only say that it is.
func sameVerdict(stock, ours qcowtest.Verdict) string {
	lines := func(text string) []string {
		text = strings.ReplaceAll(text, "Image is corrupt", "Marking image as corrupt")
		text = strings.ReplaceAll(text, "further non-fatal", "further")
		var kept []string
		for _, line := range strings.Split(qcowtest.FirstLines(text), "\n") {
			if !strings.HasPrefix(line, "qemu-img: ") && !saidElsewhere[line] && !strings.HasPrefix(line, "ERROR failed to read the snapshot table") && line != "" {
				kept = append(kept, line)
			}
		}
		slices.Sort(kept)
		return slices.Compact(kept)
	}
	if gaveUp(stock) {
		ours.Figures = stock.Figures
	}
	said, ourSaid := lines(stock.Said), lines(ours.Said)
	if strings.Count(stock.Said, "\n") >= qcowtest.SaidLinesMax-1 {
		ourSaid = said // they are the first of many, which come in another order
	}
	type comparable struct {
		Status  int
		Figures qcowtest.CheckResult
		Said    []string
	}
	return cmp.Diff(comparable{stock.Status, stock.Figures, said}, comparable{ours.Status, ours.Figures, ourSaid})
}

// saidElsewhere are lines of the one or the other that have no counterpart.
var saidElsewhere = map[string]bool{"ERROR could not resize image: File too large": true}

// gaveUp reports whether qemu-img came to no result.
func gaveUp(v qcowtest.Verdict) bool { return v.Status == 1 && v.Figures == (qcowtest.CheckResult{}) }

// repairedBetter are corruptions that QEMU repairs by making the file as long as a bad refcount table says. We drop the bad entry.
var repairedBetter = map[int]bool{18: true, 23: true, 24: true}

// Goal: each of the 26 corruptions gets QEMU's verdict, and a repair puts right what QEMU's does. Method: verdicts are compared with
// the recorded ones of qemu-img; where that fails to repair we may do better, and then qemu-img must find the image clean.
func TestCorruptionsAreJudgedAsByQEMU(t *testing.T) {
	reactions, err := qcowtest.Reactions()
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range qcowtest.Corruptions {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			judge(t, c, reactions[i])
		})
	}
}

func judge(t *testing.T, c qcowtest.Corruption, stock qcowtest.Reaction) {
	compare := func(what string, stock qcowtest.Verdict, path string, repair Repair) {
		t.Helper()
		if diff := sameVerdict(stock, verdict(t, path, repair)); diff != "" {
			t.Errorf("%s: qemu-img (-) and we (+):\n%s", what, diff)
		}
	}
	compare("check", stock.Check, c.Make(t, t.TempDir()), RepairNothing)
	path := c.Make(t, t.TempDir())
	compare("leaks", stock.Leaks, path, RepairLeaks)
	compare("check after leaks", stock.LeaksAfter, path, RepairNothing)
	path = c.Make(t, t.TempDir())
	if gaveUp(stock.Once) || repairedBetter[c.Number] {
		verdict(t, path, RepairAll)
		qcowtest.MustBeClean(t, path, false)
		return
	}
	compare("all", stock.Once, path, RepairAll)
	compare("all again", stock.Twice, path, RepairAll)
	if diff := sameVerdict(stock.After, qcowtest.StockVerdict(t, path, "")); diff != "" {
		t.Errorf("qemu-img after its own repair (-) and ours (+):\n%s", diff)
	}
}
