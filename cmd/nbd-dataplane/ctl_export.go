package main

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/nfs"

	"nbd-dataplane/blockcore"
)

func (t *ctl) newExport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export COMMAND",
		Short: "List, add and remove exports",
		Args:  t.args(0, 0, "a command"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(t.newExportList(), t.newExportAdd(), t.newExportDel())
	return cmd
}

func (t *ctl) newExportList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the exports",
		Args:  t.args(0, 0, ""),
		RunE: t.run(func(m *monitor, _ []string) error {
			var exports []exportAnswer
			raw, err := m.query("query-block-exports", nil, &exports)
			if err != nil {
				return err
			}
			if t.asJSON {
				return t.printJSON(raw)
			}
			t.printExportTable(exports)
			return nil
		}),
	}
}

// exportOrder is what "export add" is asked for.
type exportOrder struct {
	id, name, description string
	writable              bool
	ioThread, group       string
	farewell              string
	pause                 secondsValue
	allowLess             bool
	file                  fileOrder
}

func (t *ctl) newExportAdd() *cobra.Command {
	o := &exportOrder{pause: secondsValue{flag: "pause"}}
	cmd := &cobra.Command{
		Use:   "add NODE|--file PATH [flags]",
		Short: "Offer a node, or a file, to clients",
		Long: "Offers a node that is there, or a file or block device, which is opened, as an export. Clients may only read unless --writable\n" +
			"is given. Exports are known to clients by their names and here by their ids; each is by default the other, or what the\n" +
			"file or the node is called.",
		Example: "  nbd-dataplane ctl export add --file /srv/data.img --writable\n" +
			"  nbd-dataplane ctl export add disk0 --id copy --name read-only-copy",
		Args:                  t.args(0, 1, ""),
		ValidArgsFunction:     t.completeFirst(nodeNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.exportAdd(m, args, o) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	o.file.addFlags(cmd)
	flags.StringVar(&o.id, "id", "", "`ID` by which ctl knows the export")
	flags.StringVar(&o.name, "name", "", "`NAME` by which clients know it")
	flags.StringVar(&o.description, "description", "", "`TEXT` that clients see in lists")
	flags.BoolVar(&o.writable, "writable", false, "let clients write")
	flags.StringVar(&o.ioThread, "iothread", "", "event loop to run it on, by its `ID`")
	flags.StringVar(&o.group, "group", "", "throttle group, by its `ID`")
	flags.StringVar(&o.farewell, "farewell", "", "`WHAT` its clients meet at the end: restart (default), retire or pause")
	flags.Var(&o.pause, "pause", "with --farewell pause: how long they wait for another export of the name (default 30s)")
	flags.BoolVar(&o.allowLess, "allow-less", false, "although clients have seen a larger size, or more abilities, under this name: no QEMU will reconnect")
	_ = cmd.RegisterFlagCompletionFunc("farewell", cobra.FixedCompletions([]string{"restart", "retire", "pause"}, cobra.ShellCompDirectiveNoFileComp))
	t.completeFlag(cmd, "iothread", ioThreads)
	t.completeFlag(cmd, "group", throttleGroups)
	return cmd
}

func (t *ctl) exportAdd(m *monitor, args []string, o *exportOrder) error {
	switch {
	case len(args) == 0 && o.file.path == "":
		return usagef("name a node, or a file with --file PATH")
	case len(args) == 1 && o.file.path != "":
		return usagef("name either a node or --file PATH")
	}
	o.fill(args)
	if o.file.path == "" {
		if _, err := m.nodeSize(args[0]); err != nil {
			return err
		}
		return t.exportNode(m, args[0], o)
	}
	if o.file.node == "" {
		o.file.node = identifierOf(o.id, nodeNameMax)
	}
	if err := o.file.open(m, o.writable); err != nil {
		return err
	}
	if err := t.exportNode(m, o.file.node, o); err != nil {
		return o.file.undo(m, err)
	}
	return nil
}

// fill makes up the names that were not given.
func (o *exportOrder) fill(args []string) {
	from := o.name
	switch {
	case from != "":
	case o.file.path != "":
		from = filepath.Base(o.file.path)
		if options, _, err := nfs.ParseURL(o.file.path); err == nil {
			from = filepath.Base(options.Path)
		}
		from = strings.TrimSuffix(from, filepath.Ext(from))
	default:
		from = args[0]
	}
	if o.id == "" {
		o.id = identifierOf(from, len(from)+1)
	}
	if o.name == "" {
		o.name = o.id
	}
}

// strange is what an id may not have in it.
var strange = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// identifierOf makes an id of a name.
func identifierOf(name string, most int) string {
	id := strange.ReplaceAllString(name, "-")
	if !blockcore.IsIdentifier(id) {
		id = "x" + id
	}
	return id[:min(len(id), most)]
}

func (t *ctl) exportNode(m *monitor, node string, o *exportOrder) error {
	args := map[string]any{"type": "nbd", "id": o.id, "node-name": node, "name": o.name, "writable": o.writable}
	for key, value := range map[string]string{"description": o.description, "x-throttle-group": o.group, "x-farewell": o.farewell, "iothread": o.ioThread} {
		if value != "" {
			args[key] = value
		}
	}
	if o.ioThread != "" {
		args["fixed-iothread"] = false
	}
	if o.pause.d != 0 {
		args["x-pause"] = o.pause.seconds()
	}
	if o.allowLess {
		args["x-allow-less"] = true
	}
	if err := m.ask("block-export-add", args, nil); err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(map[string]any{"id": o.id, "name": o.name, "node-name": node})
	}
	t.say("export %s of node %s added", printable(o.id), printable(node))
	return nil
}
