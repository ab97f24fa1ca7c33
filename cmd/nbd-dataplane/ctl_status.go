package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (t *ctl) newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the exports and how they are doing",
		Long: "Shows the server's version and its exports: the node that each one offers, its size, whether clients may write, how many\n" +
			"there are, requests in flight, whether it runs or is held still by drained sections, its throttle group and its\n" +
			"event loop.",
		Example: "  nbd-dataplane ctl status\n  nbd-dataplane ctl status --json | jq '.exports[].\"x-clients\"'",
		Args:    t.args(0, 0, ""),
		RunE:    t.run(t.status),
	}
}

func (t *ctl) status(m *monitor, _ []string) error {
	var exports []exportAnswer
	raw, err := m.query("query-block-exports", nil, &exports)
	if err != nil {
		return err
	}
	version := m.Greeting().Version
	if t.asJSON {
		return t.printJSON(map[string]any{"version": version, "control": m.path, "exports": raw})
	}
	fmt.Fprintf(t.c.out, "%s at %s\n", printable(version.Package), m.path)
	t.printExportTable(exports)
	return nil
}

func (t *ctl) printExportTable(exports []exportAnswer) {
	if len(exports) == 0 {
		fmt.Fprintln(t.c.out, "no exports")
		return
	}
	list := newTable("EXPORT", "NODE", ">SIZE", "MODE", ">CLIENTS", ">IN FLIGHT", "STATE", "THROTTLE", "IOTHREAD")
	for i := range exports {
		e := &exports[i]
		list.row(e.label(), printable(e.Node), sizeText(e.Size), e.mode(), e.Clients, e.InFlight, e.state(), printableOr(e.Throttle, ""), printable(e.IOThread))
	}
	list.write(t.c.out)
}

// label is the id, and the name where clients know it by another.
func (e *exportAnswer) label() string {
	if e.Name == e.ID {
		return printable(e.ID)
	}
	return fmt.Sprintf("%s (%s)", printable(e.ID), printable(e.Name))
}

func (e *exportAnswer) mode() string {
	if e.Writable {
		return "rw"
	}
	return "ro"
}

func (e *exportAnswer) state() string {
	switch {
	case e.Shutting:
		return "leaving"
	case e.Quiesced == 1:
		return "still"
	case e.Quiesced > 1:
		return fmt.Sprintf("still (%d sections)", e.Quiesced)
	}
	return "runs"
}

func (t *ctl) newDrains() *cobra.Command {
	return &cobra.Command{
		Use:   "drains",
		Short: "List the drained sections",
		Long: "Lists the drained sections that hold something still: those that operators hold ('ctl drain'), with the time that is left of\n" +
			"their leases, and those of changes under way.",
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
	list := newTable("ID", "EXPORTS", ">HELD", ">LEASE LEFT", ">SETTLED IN", "WHY")
	for _, s := range sections {
		left, settled := "", "still waits"
		if s.Settled {
			settled = ageText(microseconds(s.SettleUS))
		}
		if s.ID != "" {
			left = ageText(milliseconds(s.LeaseMS))
		}
		list.row(printableOr(s.ID, ""), joined(s.Exports), ageText(milliseconds(s.HeldMS)), left, settled, printable(s.Why))
	}
	list.write(t.c.out)
	return nil
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
