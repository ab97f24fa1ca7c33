package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (t *ctl) newSnapshotList() *cobra.Command {
	return &cobra.Command{
		Use:   "list [EXPORT|NODE...]",
		Short: "List the snapshots of disks",
		Long: "Lists the snapshots that are kept inside of the images of disks, of all exports or of those that are named, and the images below\n" +
			"overlays, the newest first.",
		Example:               "  nbd-dataplane ctl snapshot list root",
		Args:                  t.args(0, -1, ""),
		ValidArgsFunction:     t.complete(exportIDs, nodeNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(t.snapshotList),
	}
}

// keptRow is a row of the list: a snapshot inside of an image, or an image below an overlay.
type keptRow struct {
	What  string `json:"export"`
	Node  string `json:"node-name"`
	Kind  string `json:"kind"` // "internal" or "below"
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	Taken string `json:"taken,omitempty"`
	State uint64 `json:"vm-state-size,omitempty"`
	File  string `json:"file"`
}

func (t *ctl) snapshotList(m *monitor, args []string) error {
	if len(args) == 0 {
		exports, err := m.exports()
		if err != nil {
			return err
		}
		for i := range exports {
			args = append(args, exports[i].ID)
		}
	}
	rows := []keptRow{}
	for _, name := range args {
		at, err := m.target(name)
		if err != nil {
			return err
		}
		node, err := m.nodeNamed(at.node)
		if err != nil {
			return err
		}
		rows = append(rows, keptRows(name, node)...)
	}
	if t.asJSON {
		return t.printJSON(rows)
	}
	table := newTable("EXPORT", "KIND", ">ID", "NAME", "TAKEN", "FILE")
	for i := range rows {
		r := &rows[i]
		table.row(printable(r.What), r.Kind, printableOr(r.ID, ""), printableOr(r.Name, ""), r.Taken, printableOr(r.File, ""))
	}
	table.write(t.c.out)
	return nil
}

// keptRows goes down a chain of images. A filter has the file of what is below it, and nothing of its own.
func keptRows(name string, node *nodeAnswer) (rows []keptRow) {
	first := true
	for image := &node.Image; image != nil; image = image.Backing {
		if image.Backing != nil && image.Backing.Filename == image.Filename {
			continue
		}
		if !first {
			rows = append(rows, keptRow{What: name, Node: node.Name, Kind: "below", File: image.Filename})
		}
		first = false
		for i := range image.Snapshots {
			s := &image.Snapshots[i]
			rows = append(rows, keptRow{What: name, Node: node.Name, Kind: "internal", ID: s.ID, Name: s.Name, Taken: s.takenText(),
				State: s.VMStateBytes, File: image.Filename})
		}
	}
	return rows
}

func (t *ctl) newSnapshotDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete EXPORT|NODE... NAME",
		Short: "Give up snapshots inside of images",
		Long: "Gives up a snapshot that is kept inside of the image of one or several disks, by its name or else its id, while clients go on. If\n" +
			"one of the disks does not have it, none is changed.",
		Example:               "  nbd-dataplane ctl snapshot delete root data before-upgrade",
		Args:                  t.args(2, -1, "an export or a node, and the snapshot"),
		ValidArgsFunction:     t.complete(exportIDs, nodeNames, snapshotNames),
		DisableFlagsInUseLine: true,
		RunE: t.run(func(m *monitor, args []string) error {
			return t.snapshotEach(m, args, "blockdev-snapshot-delete-internal-sync", "deleted")
		}),
	}
}

func (t *ctl) newSnapshotApply() *cobra.Command {
	return &cobra.Command{
		Use:   "apply EXPORT|NODE... NAME",
		Short: "Make disks what they were at a snapshot",
		Long: "Makes one or several disks what they were when a snapshot was taken that is kept inside of their images, their sizes too. What they\n" +
			"are now is lost, unless it is in another snapshot; the snapshot stays. No client may be connected, and nothing else may use\n" +
			"the disks: what was read of them would not be true any more.",
		Example:               "  nbd-dataplane ctl snapshot apply root before-upgrade",
		Args:                  t.args(2, -1, "an export or a node, and the snapshot"),
		ValidArgsFunction:     t.complete(exportIDs, nodeNames, snapshotNames),
		DisableFlagsInUseLine: true,
		RunE: t.run(func(m *monitor, args []string) error {
			return t.snapshotEach(m, args, "x-blockdev-snapshot-apply", "applied")
		}),
	}
}

// snapshotEach does something with a snapshot of each disk, when all of them have it.
func (t *ctl) snapshotEach(m *monitor, args []string, command, done string) error {
	name := args[len(args)-1]
	var all []taken
	var ids []string
	for _, what := range args[:len(args)-1] {
		at, err := m.target(what)
		if err != nil {
			return err
		}
		node, err := m.nodeNamed(at.node)
		if err != nil {
			return err
		}
		s := keptNamed(node.Image.Snapshots, name)
		if s == nil {
			return notFound("%s has no snapshot %s inside of its image", printable(what), printable(name))
		}
		all, ids = append(all, taken{What: what, Node: at.node, Name: s.Name}), append(ids, s.ID)
	}
	for i := range all {
		one := &all[i]
		args := map[string]string{"device": one.Node, "id": ids[i], "name": one.Name}
		if err := t.askTelling(m, target{node: one.Node}, command, args); err != nil {
			return fmt.Errorf("%s: %w", printable(one.What), err)
		}
		t.say("%s: snapshot %s %s", printable(one.What), printable(one.Name), done)
	}
	if t.asJSON {
		return t.printJSON(all)
	}
	return nil
}

// keptNamed finds a snapshot by its name, or else by its id.
func keptNamed(all []snapshotAnswer, name string) *snapshotAnswer {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	for i := range all {
		if all[i].ID == name {
			return &all[i]
		}
	}
	return nil
}

// snapshotNames are the snapshots inside of all images.
func snapshotNames(ctx context.Context, m *monitor) (found []cobra.Completion) {
	var nodes []nodeAnswer
	_ = m.askWithin(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes)
	for i := range nodes {
		for k := range nodes[i].Image.Snapshots {
			s := &nodes[i].Image.Snapshots[k]
			found = append(found, cobra.CompletionWithDesc(s.Name, fmt.Sprintf("snapshot of %s, %s", printable(nodes[i].Name), s.takenText())))
		}
	}
	return found
}
