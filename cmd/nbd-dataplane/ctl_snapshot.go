package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/nfs"
)

func (t *ctl) newSnapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot COMMAND",
		Short: "Take, list, delete and apply snapshots",
		Long: "Keeps disks as they are at one instant, while clients go on. A snapshot is an overlay, a new file that takes what is written from then\n" +
			"on while the image below stays as it is; or it is kept inside of a qcow2 image (--internal).",
		Args: t.args(0, 0, "a command"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(t.newSnapshotCreate(), t.newSnapshotList(), t.newSnapshotDelete(), t.newSnapshotApply())
	return cmd
}

// snapshotOrder is what "snapshot create" is asked for.
type snapshotOrder struct {
	internal           bool
	name, file, format string
}

func (t *ctl) newSnapshotCreate() *cobra.Command {
	o := &snapshotOrder{}
	cmd := &cobra.Command{
		Use:   "create EXPORT|NODE... [--name NAME] [--file PATH] | --internal EXPORT|NODE... NAME",
		Short: "Keep disks as they are",
		Long: "Keeps the disks of one or several exports as they are, all of them at the same instant or none. Clients are held for as long as\n" +
			"that takes.\n\n" +
			"Without --internal each disk gets an overlay, a qcow2 image next to its own that is called IMAGE.NAME.qcow2; NAME is the date\n" +
			"and the time unless it is given. Clients write to the overlay from then on, and the image below stays as it is: it can be\n" +
			"copied. The overlay of an image on an NFS server is on the share. With --internal the snapshot is kept inside of the image, which\n" +
			"has to be qcow2.",
		Example: "  nbd-dataplane ctl snapshot create root data\n" +
			"  nbd-dataplane ctl snapshot create root --file /fast/root-today.qcow2\n" +
			"  nbd-dataplane ctl snapshot create --internal root data before-upgrade",
		Args:                  t.args(1, -1, "an export or a node"),
		ValidArgsFunction:     t.complete(exportIDs, nodeNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.snapshotCreate(m, args, o) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&o.internal, "internal", false, "keep the snapshot inside of the image; the last argument is its name")
	flags.StringVar(&o.name, "name", "", "`NAME` of the snapshot (default: date and time)")
	flags.StringVar(&o.file, "file", "", "`PATH` of the overlay, or nfs://..., which is made, or made anew")
	flags.StringVar(&o.format, "format", formatQcow2, "`FMT` of the overlay")
	_ = cmd.MarkFlagFilename("file")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formatQcow2}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// taken is a snapshot of one disk in the making.
type taken struct {
	What string `json:"export,omitempty"`
	Node string `json:"node-name"`
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Over string `json:"overlay-node-name,omitempty"`
}

func (t *ctl) snapshotCreate(m *monitor, args []string, o *snapshotOrder) error {
	if o.internal {
		switch {
		case o.file != "" || o.format != formatQcow2:
			return usagef("--file and --format are for overlays; leave --internal out")
		case o.name == "" && len(args) < 2:
			return usagef("name the snapshot: %s NAME", args[0])
		case o.name == "":
			o.name, args = args[len(args)-1], args[:len(args)-1]
		}
	}
	if o.file != "" && len(args) > 1 {
		return usagef("--file is the overlay of one disk, and %d are named", len(args))
	}
	if o.name == "" {
		name, err := m.nameByTime(args)
		if err != nil {
			return err
		}
		o.name = name
	}
	var all []taken
	var actions []any
	var over covered
	for _, name := range args {
		at, err := m.target(name)
		if err != nil {
			return err
		}
		one := taken{What: name, Node: at.node, Name: o.name}
		action, err := o.action(m, &one)
		if err != nil {
			return err
		}
		all, actions, over = append(all, one), append(actions, action), over.with(at.covered())
	}
	if err := t.askOver(m, over, "transaction", map[string]any{"actions": actions}); err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(all)
	}
	for i := range all {
		if one := &all[i]; o.internal {
			t.say("%s: snapshot %s taken", printable(one.What), printable(one.Name))
		} else {
			t.say("%s: clients write to %s, node %s", printable(one.What), printable(one.File), printable(one.Over))
		}
	}
	return nil
}

// nameByTime is a name of date and time for snapshots of disks, with a number behind it if one of them has had one in this second.
func (m *monitor) nameByTime(exports []string) (string, error) {
	var nodes []nodeAnswer
	if _, err := m.query("query-named-block-nodes", nil, &nodes); err != nil {
		return "", err
	}
	second := now().Format("20060102-150405")
	for n := 1; n < 1000; n++ {
		name := second
		if n > 1 {
			name += "-" + strconv.Itoa(n)
		}
		isTaken := slices.ContainsFunc(nodes, func(node nodeAnswer) bool {
			return slices.ContainsFunc(exports, func(export string) bool { return node.Name == overlayNode(export, name) })
		})
		if !isTaken {
			return name, nil
		}
	}
	return "", usagef("a thousand snapshots were taken in this second; say --name NAME")
}

// action is the part of the transaction for one disk.
func (o *snapshotOrder) action(m *monitor, one *taken) (any, error) {
	if o.internal {
		return action("blockdev-snapshot-internal-sync", map[string]any{"device": one.Node, "name": o.name}), nil
	}
	one.Over = overlayNode(one.What, o.name)
	var err error
	if one.File, err = o.overlay(m, one.Node); err != nil {
		return nil, err
	}
	return action("blockdev-snapshot-sync", map[string]any{
		"node-name": one.Node, "snapshot-file": one.File, "snapshot-node-name": one.Over, "format": o.format, "x-exclusive": o.file == "",
	}), nil
}

// snapshotNameMax is how much of a snapshot's name goes into that of a node: a date, a time, and a number.
const snapshotNameMax = 20

// overlayNode is a name for the node of an overlay; what is cut off if it is too long is the end of the export's name.
func overlayNode(export, name string) string {
	name = strange.ReplaceAllString(name, "-")
	name = name[:min(len(name), snapshotNameMax)]
	return identifierOf(export, nodeNameMax-1-len(name)) + "-" + name
}

func action(kind string, data map[string]any) any {
	return map[string]any{"type": kind, "data": data}
}

// dated is the end of the name of an overlay that was called by date and time.
var dated = regexp.MustCompile(`\.[0-9]{8}-[0-9]{6}(-[0-9]+)?$`)

// overlay is the file for the overlay of a node: next to its image, if no other was said.
func (o *snapshotOrder) overlay(m *monitor, node string) (string, error) {
	if o.file != "" {
		return wholeName(o.file)
	}
	image, err := m.nodeNamed(node)
	switch _, isURL := protocolOf(image.Path); {
	case err != nil:
		return "", err
	case nfs.IsURL(image.Path):
		return o.overlayOnNFS(image.Path)
	case isURL || image.Path == "":
		return "", usagef("node %s lies in no file, next to which the overlay could be; say --file PATH", printable(node))
	case strings.HasPrefix(image.Path, "/dev/"):
		return "", usagef("node %s is a device; say with --file PATH where the overlay is to be", printable(node))
	}
	return o.overlayOf(image.Path), nil
}

// overlayOf is the name of an overlay next to an image.
func (o *snapshotOrder) overlayOf(image string) string {
	base := strings.TrimSuffix(image, filepath.Ext(image))
	return dated.ReplaceAllString(base, "") + "." + strings.ReplaceAll(o.name, "/", "-") + "." + o.format
}

// overlayOnNFS is the URL of an overlay next to the image of a URL.
func (o *snapshotOrder) overlayOnNFS(image string) (string, error) {
	options, _, err := nfs.ParseURL(image)
	if err != nil {
		return "", err
	}
	options.Path = o.overlayOf(options.Path)
	return options.URL(), nil
}

// nodeNamed finds a node.
func (m *monitor) nodeNamed(name string) (*nodeAnswer, error) {
	var nodes []nodeAnswer
	if _, err := m.query("query-named-block-nodes", nil, &nodes); err != nil {
		return &nodeAnswer{}, err
	}
	for i := range nodes {
		if nodes[i].Name == name {
			return &nodes[i], nil
		}
	}
	return &nodeAnswer{}, notFound("there is no node %s", printable(name))
}

// with is what two sections cover together.
func (c covered) with(other covered) covered {
	return covered{names: append(c.names, other.names...), nodes: append(c.nodes, other.nodes...)}
}

// takenText is when a snapshot was taken.
func (s *snapshotAnswer) takenText() string {
	return time.Unix(s.Seconds, s.Nanoseconds).Local().Format("2006-01-02 15:04:05")
}
