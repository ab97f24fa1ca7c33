package main

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/keyval"
)

func (t *ctl) newResize() *cobra.Command {
	shrink := false
	cmd := &cobra.Command{
		Use:   "resize EXPORT|NODE SIZE|+SIZE|-SIZE [flags]",
		Short: "Make a disk larger or smaller",
		Long: "Gives the node of an export another size while clients are connected. SIZE is in bytes, or with k, M, G, T behind it; + and -\n" +
			"add to and take from the size that it has. A smaller size needs --shrink: what is past it is lost, and clients that ask for\n" +
			"it get errors.\n\n" +
			"Clients that connect from then on see the new size. Those that are connected may use it at once, but NBD has no way to tell\n" +
			"them: 'device-size' tells a kernel's nbd device, and docs/operations.md says how a virtual machine of QEMU learns of it.",
		Example: "  nbd-dataplane ctl resize root 20G\n" +
			"  nbd-dataplane ctl resize root +512M\n" +
			"  nbd-dataplane ctl resize scratch -1G --shrink",
		Args:                  t.args(2, 2, "an export or a node, and its new size"),
		ValidArgsFunction:     t.completeFirst(exportIDs, nodeNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.resize(m, args[0], args[1], shrink) }),
	}
	cmd.Flags().BoolVar(&shrink, "shrink", false, "allow a smaller size: what is past it is lost")
	return cmd
}

func (t *ctl) resize(m *monitor, name, size string, shrink bool) error {
	at, err := m.target(name)
	if err != nil {
		return err
	}
	was, err := m.nodeSize(at.node)
	if err != nil {
		return err
	}
	to, err := newSize(was, size)
	switch {
	case err != nil:
		return err
	case to < was && !shrink:
		return usagef("%s has %s and %s is less: what is past the new end would be lost; add --shrink if it may be", printable(name), sizeText(was), sizeText(to))
	}
	if err := t.askTelling(m, at, "block_resize", map[string]any{"node-name": at.node, "size": to}); err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(map[string]any{"node-name": at.node, "was": was, "size": to})
	}
	t.say("%s: %s, was %s (%d bytes)", printable(name), sizeText(to), sizeText(was), to)
	return nil
}

func (m *monitor) nodeSize(name string) (int64, error) {
	nodes, err := m.nodes()
	if err != nil {
		return 0, err
	}
	for i := range nodes {
		if nodes[i].Name == name {
			return nodes[i].Image.Size, nil
		}
	}
	return 0, notFound("there is no node %s", printable(name))
}

// newSize reads SIZE, +SIZE or -SIZE.
func newSize(was int64, text string) (int64, error) {
	digits := strings.TrimLeft(text, "+-")
	n, err := keyval.Size("size", digits)
	if err != nil || len(text)-len(digits) > 1 {
		return 0, usagef("%s: use a size in bytes, or with k, M, G or T behind it, such as 20G, +512M or -1G", printable(text))
	}
	switch text[0] {
	case '+':
		n += was
	case '-':
		n = was - n
	}
	if n < 0 { // too little, or more than can be counted
		return 0, usagef("%s: the disk has %s, and that leads to no size", printable(text), sizeText(was))
	}
	return n, nil
}

// lessThan is a size to be taken away, which looks like a bundle of short options.
var lessThan = regexp.MustCompile(`^-[0-9][0-9a-zA-Z.]*$`)

// guardSizes puts the sizes among the arguments of "ctl resize" and "image resize" that begin with a minus behind a "--".
func guardSizes(args []string) []string {
	resize, guarded := false, []string{}
	var sizes []string
	for i, arg := range args {
		switch {
		case arg == "--" || i == 0 && arg != "ctl" && arg != "image":
			return args
		case resize && lessThan.MatchString(arg):
			sizes = append(sizes, arg)
			continue
		}
		resize = resize || arg == "resize"
		guarded = append(guarded, arg)
	}
	if len(sizes) == 0 {
		return args
	}
	return append(append(guarded, "--"), sizes...)
}
