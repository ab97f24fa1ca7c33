package qcowtest

import (
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Verdict is one run of qemu-img check: its status, its figures, and what it said on stderr.
type Verdict struct {
	Status  int
	Figures CheckResult
	// Said is what was said in words, on both outputs; of very many lines the first.
	Said string
}

// Reaction is what the stock tools do about a damaged image.
type Reaction struct {
	Number  int
	Name    string
	Trigger Ran
	// Check is the verdict on the damaged image, CheckTriggered that after the trigger.
	Check, CheckTriggered Verdict
	// Leaks are "check -r leaks" and a check after it; Once and Twice are "check -r all", done again, and a check.
	Leaks, LeaksAfter, Once, Twice, After Verdict
}

//go:embed testdata/corruptions.json
var corruptionsJSON []byte

// Reactions are what the stock tools did when testdata/corruptions.json was recorded, in the order of Corruptions.
func Reactions() ([]Reaction, error) {
	var list []Reaction
	return list, json.Unmarshal(corruptionsJSON, &list)
}

// StockVerdict asks qemu-img check.
func StockVerdict(t testing.TB, path, repair string) Verdict {
	t.Helper()
	figures, ran := Check(t, path, repair)
	ran = ran.without(path)
	said := ran.Stderr
	for n := range len(ran.Stdout) {
		if ran.Stdout[n] == '{' {
			said = ran.Stdout[:n] + said
			break
		}
	}
	return Verdict{ran.Status, figures, FirstLines(said)}
}

// SaidLinesMax is how many lines a Verdict keeps.
const SaidLinesMax = 20

// FirstLines are as many lines as a Verdict keeps.
func FirstLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[:min(len(lines), SaidLinesMax)], "")
}

// Observe sees what the stock tools do about a corruption. Each question gets an image of its own.
func (c Corruption) Observe(t testing.TB, dir string) Reaction {
	t.Helper()
	fresh := func(name string) string {
		below := filepath.Join(dir, name)
		if err := os.Mkdir(below, 0o700); err != nil {
			t.Fatal(err)
		}
		return c.Make(t, below)
	}
	r := Reaction{Number: c.Number, Name: c.Name}
	path := fresh("check")
	r.Check = StockVerdict(t, path, "")
	path = fresh("trigger")
	r.Trigger = c.RunTrigger(t, path)
	r.CheckTriggered = StockVerdict(t, path, "")
	path = fresh("leaks")
	r.Leaks, r.LeaksAfter = StockVerdict(t, path, "leaks"), StockVerdict(t, path, "")
	path = fresh("all")
	r.Once, r.Twice, r.After = StockVerdict(t, path, "all"), StockVerdict(t, path, "all"), StockVerdict(t, path, "")
	return r
}
