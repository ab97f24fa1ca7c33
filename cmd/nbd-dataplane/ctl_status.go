package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"
)

func (t *ctl) newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the exports and how they are doing",
		Long: "Shows the server's version and its exports: the node that each one offers, its size, whether clients may write, how many\n" +
			"there are, requests in flight, whether it runs, is being drained or is held still, and by which drained sections, its\n" +
			"throttle group and its event loop.",
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
	if e.Shutting {
		return "leaving"
	}
	return cmp.Or(e.drained(e.InFlight), "runs")
}
