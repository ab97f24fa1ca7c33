package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// drainedAnswer is what drained sections do to an export or a node.
type drainedAnswer struct {
	Phase    string   `json:"x-phase"`
	Sections []string `json:"x-sections"` // ids, or reasons
}

// phaseTexts are the phases for people.
var phaseTexts = map[string]string{
	"begin": "asked for", "throttle": "draining (throttling off)", "unplug": "draining (submitting)", "quiesce": "draining (quiescing)",
	"settle": "draining (waiting)", "still": "still", "resume": "resuming",
}

// sectionsNamed is how many sections are named; of more the number is told.
const sectionsNamed = 2

// drained says what is the matter with something that has so many requests in flight; "" = it runs.
func (d *drainedAnswer) drained(inFlight int64) string {
	text := printableOr(d.Phase, "")
	if known := phaseTexts[d.Phase]; known != "" {
		text = known
	}
	switch {
	case d.Phase == "" || d.Phase == "none" || d.Phase == "begin":
		return ""
	case d.Phase == "settle" && inFlight > 0:
		text = fmt.Sprintf("draining (waiting for %d)", inFlight)
	}
	switch n := len(d.Sections); {
	case n == 0:
		return text
	case n > sectionsNamed:
		return fmt.Sprintf("%s: %d sections", text, n)
	}
	return text + ": " + joined(d.Sections)
}

func (t *ctl) newDrains() *cobra.Command {
	return &cobra.Command{
		Use:   "drains",
		Short: "List the drained sections",
		Long: "Lists the drained sections: those that operators hold or have asked for ('ctl drain'), by their ids and with the time that is\n" +
			"left of their leases, and those of changes under way, which have no id. Below the table stands whom those wait for that are\n" +
			"not still yet.",
		Args: t.args(0, 0, ""),
		RunE: t.run(t.drains),
	}
}

func (t *ctl) drains(m *monitor, _ []string) error {
	var sections []drainAnswer
	raw, err := m.query("x-query-drains", nil, &sections)
	if err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(raw)
	}
	if len(sections) == 0 {
		fmt.Fprintln(t.c.out, "nothing is held still")
		return nil
	}
	list := newTable("ID", "EXPORTS", "PHASE", ">AGE", ">LEASE LEFT", ">SETTLED IN", "WHY")
	for i := range sections {
		s := &sections[i]
		left, settled := "", ""
		if s.Phase == "still" {
			settled = ageText(microseconds(s.SettleUS))
			if s.ID != "" {
				left = ageText(milliseconds(s.LeaseMS))
			}
		}
		list.row(printableOr(s.ID, ""), joined(s.Exports), s.phase(), ageText(milliseconds(s.AgeMS)), left, settled, printable(s.Why))
	}
	list.write(t.c.out)
	for i := range sections {
		t.printCulprits(&sections[i])
	}
	return nil
}

func (s *drainAnswer) phase() string {
	d := drainedAnswer{Phase: s.Phase}
	if s.Phase == "begin" {
		return phaseTexts[s.Phase]
	}
	return d.drained(int64(s.Waiting))
}

// printCulprits tells whom a section waits for, the oldest first.
func (t *ctl) printCulprits(s *drainAnswer) {
	if s.Waiting == 0 {
		return
	}
	fmt.Fprintf(t.c.out, "%s waits for:\n", printable(s.Why))
	shown := s.WaitsFor[:min(culpritsShown, len(s.WaitsFor))]
	for i := range shown {
		fmt.Fprintln(t.c.out, "  "+shown[i].text())
	}
	if more := s.Waiting - len(shown); more > 0 {
		fmt.Fprintf(t.c.out, "  and %d more\n", more)
	}
}

func (c *culpritAnswer) text() string {
	if c.What != "" {
		return printable(c.What)
	}
	return c.requestAnswer.text()
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// joined is a list of names from elsewhere.
func joined(names []string) string {
	text := ""
	for i, name := range names {
		if i > 0 {
			text += ","
		}
		text += printable(name)
	}
	return text
}
