package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

func (t *ctl) newMove() *cobra.Command {
	fresh := ""
	cmd := &cobra.Command{
		Use:   "move EXPORT|NODE IOTHREAD|--new NAME",
		Short: "Move a disk to another event loop",
		Long: "Moves a node, and all that shares requests with it, to another event loop while its clients go on. --new starts one. The loop\n" +
			"'main' is the one of what nobody has put elsewhere.",
		Example:               "  nbd-dataplane ctl move root iothread1\n  nbd-dataplane ctl move data --new busy",
		Args:                  t.args(1, 2, "an export or a node, and an event loop"),
		ValidArgsFunction:     t.completeEach([]names{exportIDs, nodeNames}, []names{ioThreads}),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.move(m, args, fresh) }),
	}
	cmd.Flags().StringVar(&fresh, "new", "", "start an event loop of this `NAME` and move there")
	return cmd
}

// mainLoop is the name for the loop that is no object.
const mainLoop = "main"

func (t *ctl) move(m *monitor, args []string, fresh string) error {
	if (len(args) == 2) == (fresh != "") {
		return usagef("name either an event loop or --new NAME")
	}
	at, err := m.target(args[0])
	if err != nil {
		return err
	}
	loop := fresh
	if fresh == "" {
		loop = args[1]
		if err := m.mustHave(typeIOThread, loop, "event loop"); err != nil && loop != mainLoop {
			return err
		}
	} else if err := m.ask("object-add", map[string]string{"qom-type": "iothread", "id": fresh}, nil); err != nil {
		return err
	}
	to := any(loop)
	if known, err := m.objects(typeIOThread); err == nil && loop == mainLoop && !slices.Contains(known, loop) {
		to = nil
	}
	if err := t.askTelling(m, at, "x-blockdev-set-iothread", map[string]any{"node-name": at.node, "iothread": to, "force": true}); err != nil {
		if fresh != "" {
			_ = m.ask("object-del", map[string]string{"id": fresh}, nil)
		}
		return err
	}
	t.say("%s runs on %s", printable(args[0]), printable(loop))
	return nil
}

// mustHave makes sure that there is an object, and names those that there are.
func (m *monitor) mustHave(kind, name, what string) error {
	known, err := m.objects(kind)
	if err != nil || slices.Contains(known, name) {
		return err
	}
	return notFound("%s: there is no such %s; there are %s", printable(name), what, listed(known))
}

func (t *ctl) newInsert() *cobra.Command {
	name := ""
	cmd := &cobra.Command{
		Use:   "insert EXPORT|NODE DRIVER [KEY=VALUE...] [flags]",
		Short: "Put a filter above a node",
		Long: "Makes a node of a filter driver above another one: whoever uses that one goes through the filter from then on, while clients go\n" +
			"on. KEY=VALUE are the driver's options, as blockdev-add has them.",
		Example:               "  nbd-dataplane ctl insert root throttle throttle-group=slow\n  nbd-dataplane ctl remove root-throttle",
		Args:                  t.args(2, -1, "an export or a node, and the driver of the filter"),
		ValidArgsFunction:     t.completeFirst(exportIDs, nodeNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.insert(m, args, name) }),
	}
	cmd.Flags().StringVar(&name, "node-name", "", "`NAME` of the filter (default EXPORT-DRIVER)")
	return cmd
}

func (t *ctl) insert(m *monitor, args []string, name string) error {
	at, err := m.target(args[0])
	if err != nil {
		return err
	}
	options, err := readArguments(args[2:])
	if err != nil {
		return err
	}
	if name == "" {
		name = identifierOf(args[0]+"-"+args[1], nodeNameMax)
	}
	options["driver"], options["node-name"], options["file"] = args[1], name, at.node
	if err := m.ask("blockdev-add", options, nil); err != nil {
		return err
	}
	if err := t.askTelling(m, at, "x-blockdev-insert", map[string]string{"node-name": name, "above": at.node}); err != nil {
		_ = m.ask("blockdev-del", map[string]string{"node-name": name}, nil)
		return err
	}
	t.say("filter %s is above node %s", printable(name), printable(at.node))
	return nil
}

func (t *ctl) newRemove() *cobra.Command {
	keep := false
	cmd := &cobra.Command{
		Use:   "remove FILTER [flags]",
		Short: "Take a filter out",
		Long: "Takes a filter out: whoever uses it uses the node below from then on, while clients go on. The filter is closed. The driver raw is no\n" +
			"filter, since it may show a part of what is below: 'ctl replace' puts another node in its place.",
		Example:               "  nbd-dataplane ctl remove root-throttle",
		Args:                  t.args(1, 1, "the node of a filter"),
		ValidArgsFunction:     t.completeFirst(nodeNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.remove(m, args[0], keep) }),
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the filter there, unused")
	return cmd
}

func (t *ctl) remove(m *monitor, filter string, keep bool) error {
	if _, err := m.nodeSize(filter); err != nil {
		return err
	}
	node := map[string]string{"node-name": filter}
	if err := t.askTelling(m, target{node: filter}, "x-blockdev-remove", node); err != nil {
		return err
	}
	if !keep {
		if err := m.ask("blockdev-del", node, nil); err != nil {
			return fmt.Errorf("%s is out, and could not be closed: %w", printable(filter), err)
		}
	}
	t.say("filter %s is out", printable(filter))
	return nil
}

func (t *ctl) newReplace() *cobra.Command {
	o := &fileOrder{}
	writable := false
	cmd := &cobra.Command{
		Use:   "replace EXPORT|NODE NODE|--file PATH",
		Short: "Put another node in the place of one",
		Long: "Has whoever uses a node use another one from then on, while clients go on. The other one must be as large. The first one stays\n" +
			"open and unused.",
		Example:               "  nbd-dataplane ctl replace root copy\n  nbd-dataplane ctl replace root --file /srv/copy.img --writable",
		Args:                  t.args(1, 2, "an export or a node, and the node to take its place"),
		ValidArgsFunction:     t.completeEach([]names{exportIDs, nodeNames}, []names{nodeNames}),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.replace(m, args, o, writable) }),
	}
	cmd.Flags().SortFlags = false
	o.addFlags(cmd)
	cmd.Flags().BoolVar(&writable, "writable", false, "open --file for writing")
	return cmd
}

func (t *ctl) replace(m *monitor, args []string, o *fileOrder, writable bool) error {
	if (len(args) == 2) == (o.path != "") {
		return usagef("name either a node or --file PATH")
	}
	at, err := m.target(args[0])
	if err != nil {
		return err
	}
	with := o.node
	switch {
	case len(args) == 2:
		with = args[1]
		if _, err := m.nodeSize(with); err != nil {
			return err
		}
	default:
		if o.node == "" {
			o.node = identifierOf(args[0]+"-new", nodeNameMax)
		}
		with = o.node
		if err := o.open(m, writable); err != nil {
			return err
		}
	}
	if err := t.askTelling(m, at, "x-blockdev-replace", map[string]string{"node-name": at.node, "with": with}); err != nil {
		switch {
		case o.path == "":
			return err
		case !writable && at.export != nil && at.export.Writable:
			err = fmt.Errorf("%w; clients of %s write: add --writable", err, printable(args[0]))
		}
		return o.undo(m, err)
	}
	t.say("%s uses node %s instead of %s", printable(args[0]), printable(with), printable(at.node))
	return nil
}
