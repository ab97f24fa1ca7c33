package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// graphAnswer is the server's graph.
type graphAnswer struct {
	Nodes []vertex `json:"nodes"`
	Edges []edge   `json:"edges"`
}

type vertex struct {
	ID       int    `json:"id"`
	Type     string `json:"type"`
	Name     string `json:"name"`
	InFlight int64  `json:"x-in-flight"`
	Quiesced int    `json:"x-quiesced"`
	IOThread string `json:"x-iothread"`
	Driver   string `json:"x-driver"`
	Throttle string `json:"x-throttle-group"`
	drainedAnswer
}

type edge struct {
	Parent int      `json:"parent"`
	Child  int      `json:"child"`
	Name   string   `json:"name"`
	Perm   []string `json:"perm"`
	Shared []string `json:"shared-perm"`
}

func (t *ctl) newGraph() *cobra.Command {
	permissions := false
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Draw the graph of nodes",
		Long: "Draws the graph: the owners (exports and jobs), and below each the nodes that it uses. A node that several use is drawn under\n" +
			"each of them, with what is below it the first time only. QUIESCED counts the drained sections that cover a node; IN FLIGHT\n" +
			"counts the requests that are in it now. DRAIN shows how far the drain of it has got, and which sections cover it, by their\n" +
			"ids (of 'ctl drains') or reasons: throttling off, submitting, quiescing, waiting for so many requests in flight there (for\n" +
			"others, where there are none), still, resuming.",
		Args: t.args(0, 0, ""),
		RunE: t.run(func(m *monitor, _ []string) error { return t.graph(m, permissions) }),
	}
	cmd.Flags().BoolVarP(&permissions, "verbose", "v", false, "show the permissions that each user takes and leaves to others, too")
	return cmd
}

func (t *ctl) graph(m *monitor, permissions bool) error {
	var g graphAnswer
	raw, err := m.query("x-debug-query-block-graph", nil, &g)
	if err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(raw)
	}
	nodes, err := m.nodes()
	if err != nil {
		return err
	}
	heads := []string{"NAME", "DRIVER", ">SIZE", ">IN FLIGHT", ">QUIESCED", "IOTHREAD", "DRAIN", "ABOUT"}
	if permissions {
		heads = append(heads, "TAKES", "LEAVES")
	}
	d := &drawing{graph: &g, known: map[string]nodeAnswer{}, drawn: map[int]bool{}, table: newTable(heads...), permissions: permissions}
	for _, n := range nodes {
		d.known[n.Name] = n
	}
	d.draw()
	d.table.write(t.c.out)
	return nil
}

// drawing is a tree that grows row by row.
type drawing struct {
	graph       *graphAnswer
	known       map[string]nodeAnswer
	drawn       map[int]bool
	table       *table
	permissions bool
}

// draw begins with the owners; nodes that nobody uses follow.
func (d *drawing) draw() {
	for i := range d.graph.Nodes {
		if v := &d.graph.Nodes[i]; v.Type != "block-driver" {
			d.owner(v)
		}
	}
	for i := range d.graph.Nodes {
		v := &d.graph.Nodes[i]
		if v.Type == "block-driver" && !slices.ContainsFunc(d.graph.Edges, func(e edge) bool { return e.Child == v.ID }) {
			d.node(v, nil, "", "")
		}
	}
}

func (d *drawing) owner(v *vertex) {
	about := ""
	if v.Throttle != "" {
		about = "throttle " + printable(v.Throttle)
	}
	d.row(printable(v.Name), "export", "", v, about, nil)
	d.below(v.ID, "")
}

// below draws the children of a vertex; prefix is what stands before their branches.
func (d *drawing) below(parent int, prefix string) {
	var edges []edge
	for _, e := range d.graph.Edges {
		if e.Parent == parent {
			edges = append(edges, e)
		}
	}
	for i := range edges {
		branch, trunk := "|-- ", "|   "
		if i == len(edges)-1 {
			branch, trunk = "`-- ", "    "
		}
		if child := d.vertex(edges[i].Child); child != nil {
			d.node(child, &edges[i], prefix+branch, prefix+trunk)
		}
	}
}

func (d *drawing) vertex(id int) *vertex {
	for i := range d.graph.Nodes {
		if d.graph.Nodes[i].ID == id {
			return &d.graph.Nodes[i]
		}
	}
	return nil
}

// node draws a node behind first, and what is below it behind rest.
func (d *drawing) node(v *vertex, by *edge, first, rest string) {
	label := printable(v.Name)
	if by != nil && by.Name != "root" {
		label = printable(by.Name) + ": " + label
	}
	n := d.known[v.Name]
	about := printableOr(n.File, "")
	switch {
	case by == nil:
		about = strings.TrimSpace(about + " (not used)")
	case d.drawn[v.ID]:
		about = "(see above)"
	case n.ReadOnly:
		about = strings.TrimSpace(about + " (read-only)")
	}
	d.row(first+label, printable(v.Driver), sizeText(n.Image.Size), v, about, by)
	if d.drawn[v.ID] {
		return
	}
	d.drawn[v.ID] = true
	d.below(v.ID, rest)
}

func (d *drawing) row(label, driver, size string, v *vertex, about string, by *edge) {
	cells := []any{label, driver, size, v.InFlight, v.Quiesced, printable(v.IOThread), v.drained(v.InFlight), about}
	if d.permissions && by != nil {
		cells = append(cells, strings.Join(by.Perm, ","), strings.Join(by.Shared, ","))
	}
	for len(cells) < len(d.table.heads) {
		cells = append(cells, "")
	}
	d.table.row(cells...)
}
