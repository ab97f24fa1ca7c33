package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// exportEnd is what "export del" is asked for.
type exportEnd struct {
	hard, restart, retire, withNode bool
	pause                           secondsValue
}

// farewell is what the clients meet; empty = there may be none.
func (o *exportEnd) farewell() string {
	switch {
	case o.pause.d != 0:
		return "pause"
	case o.retire:
		return "retire"
	case o.restart:
		return "restart"
	case o.hard:
		return "cut"
	}
	return ""
}

// farewells counts what was asked for.
func (o *exportEnd) farewells() (n int) {
	for _, asked := range []bool{o.pause.d != 0, o.retire, o.restart, o.hard} {
		if asked {
			n++
		}
	}
	return n
}

func (t *ctl) newExportDel() *cobra.Command {
	o := &exportEnd{pause: secondsValue{flag: "pause"}}
	cmd := &cobra.Command{
		Use:   "del ID [flags]",
		Short: "Take an export away",
		Long: "Takes an export away and waits until it is gone. One that has clients stays, unless one of these is given: --hard\n" +
			"cuts their connections at once, also where a disk does not answer; requests in flight are finished and not answered, and those\n" +
			"that wait for an NFS server are ended. --restart\n" +
			"answers them and closes the connections without a word; in both cases clients which can will come back.\n" +
			"--retire answers everything with the error that the server is going, for as long as they stay, or 10 seconds; --pause\n" +
			"finishes their requests and keeps their connections for the next export of the same name, on which they go on; when\n" +
			"none is added in time, it is --restart.",
		Example: "  nbd-dataplane ctl export del data\n  nbd-dataplane ctl export del data --hard --with-node\n" +
			"  nbd-dataplane ctl export del data --pause 30s --with-node && nbd-dataplane ctl export add --file /srv/copy.img --writable --name data",
		Args:                  t.args(1, 1, "an export"),
		ValidArgsFunction:     t.completeFirst(exportIDs),
		DisableFlagsInUseLine: true,
		RunE: t.run(func(m *monitor, args []string) error {
			if o.farewells() > 1 {
				return usagef("clients can meet only one end: give only one of --pause, --hard, --restart and --retire")
			}
			return t.exportDel(m, args[0], o)
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.hard, "hard", false, "although it has clients: cut their connections")
	flags.BoolVar(&o.restart, "restart", false, "although it has clients: answer what is in flight and close their connections")
	flags.BoolVar(&o.retire, "retire", false, "although it has clients: tell them that the server is going")
	flags.Var(&o.pause, "pause", "although it has clients: have them wait, at most so long, for another export of its name")
	flags.BoolVar(&o.withNode, "with-node", false, "close its node as well, if nobody else uses it")
	return cmd
}

func (t *ctl) exportDel(m *monitor, name string, o *exportEnd) error {
	e, err := m.export(name)
	if err != nil {
		return err
	}
	farewell := o.farewell()
	if farewell == "" && e.Clients > 0 {
		return &failure{statusInUse, fmt.Errorf("%s has %d clients; 'ctl clients' lists them, --hard, --restart or --retire sends them away, and --pause has them wait for another export",
			printable(e.ID), e.Clients)}
	}
	args := map[string]any{"id": e.ID}
	if farewell != "" {
		args["mode"], args["x-farewell"] = "hard", farewell
	}
	if o.pause.d != 0 {
		args["x-pause"] = o.pause.seconds()
	}
	if err := m.ask("block-export-del", args, nil); err != nil {
		return err
	}
	held, refusal, err := m.awaitDeleted(e.ID, e.Name)
	if err != nil {
		return err
	}
	if o.withNode {
		if err := m.ask("blockdev-del", map[string]string{"node-name": e.Node}, nil); err != nil {
			return fmt.Errorf("export %s is gone, its node is not: %w", printable(e.ID), err)
		}
	}
	switch {
	case held > 0:
		t.say("export %s is gone; clients that wait %v for another one named '%s': %d", printable(e.ID), o.pause.d, printable(e.Name), held)
	case refusal != "":
		t.say("export %s is gone; its clients could not wait: %s", printable(e.ID), printable(refusal))
	default:
		t.say("export %s is gone", printable(e.ID))
	}
	return nil
}

// awaitDeleted waits for the event that an export is gone, and returns the number of its clients that wait for another one, or why they cannot.
func (m *monitor) awaitDeleted(id, name string) (held int, refusal string, err error) {
	for event := range m.Events() {
		var data struct {
			ID      string `json:"id"`
			Export  string `json:"export"`
			Clients int    `json:"clients"`
			Reason  string `json:"reason"`
		}
		if !readJSON(event.Data, &data) {
			continue
		}
		switch {
		case event.Name == "X_CLIENTS_HELD" && data.Export == name:
			held = data.Clients
		case event.Name == "X_PAUSE_REFUSED" && data.Export == name:
			refusal = data.Reason
		case event.Name == "BLOCK_EXPORT_DELETED" && data.ID == id:
			return held, refusal, nil
		}
	}
	return 0, "", unreachable("%s: the connection was lost while export %s was on its way out", m.path, printable(id))
}
