package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (t *ctl) newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the exports and how they are doing",
		Long: "Shows the server's version and its exports: the node that each one offers, its size, whether clients may write, how many\n" +
			"there are, requests in flight, whether it runs, is being drained or is held still, and by which drained sections, its\n" +
			"throttle group and its event loop. Below them, of each file on an NFS server, whether the server answers.",
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
	var nodes []nodeAnswer
	if _, err := m.query("query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return err
	}
	remote := remoteStorage(nodes)
	version := m.Greeting().Version
	if t.asJSON {
		all := map[string]any{"version": version, "control": m.path, "exports": raw}
		if len(remote) > 0 {
			all["storage"] = remote
		}
		return t.printJSON(all)
	}
	fmt.Fprintf(t.c.out, "%s at %s\n", printable(version.Package), m.path)
	t.printExportTable(exports)
	for i := range remote {
		fmt.Fprintf(t.c.out, "storage %s (%s): %s\n", printable(remote[i].Name), printable(remote[i].File), remote[i].Health)
	}
	return nil
}

// storageAnswer is a node whose storage may be out of reach.
type storageAnswer struct {
	Name   string        `json:"node-name"`
	File   string        `json:"file"`
	Health *healthAnswer `json:"x-health"`
}

func remoteStorage(nodes []nodeAnswer) (all []storageAnswer) {
	for i := range nodes {
		if n := &nodes[i]; n.Health != nil {
			all = append(all, storageAnswer{n.Name, n.File, n.Health})
		}
	}
	return all
}

// String is how storage is doing, for people.
func (h *healthAnswer) String() string {
	text := "answers"
	switch {
	case h.Refuses:
		text = "is not written to any more: " + printable(h.Reason)
	case !h.OK:
		text = fmt.Sprintf("does not answer for %s: %s", time.Duration(h.SinceMS*int64(time.Millisecond)).Round(time.Second), printable(h.Reason))
	}
	if h.Timeout > 0 {
		text += "; " + timeoutText(h.Timeout)
	}
	if n := h.Incidents.Reconnects; n > 0 {
		text += fmt.Sprintf("; reconnects: %d, calls repeated: %d, lost data written again: %d", n, h.Incidents.Repeats, h.Incidents.Replays)
	}
	return text
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
