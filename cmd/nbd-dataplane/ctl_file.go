package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

// fileOrder is a file to be opened as a node.
type fileOrder struct {
	path    string
	format  string // "" = raw, unless it looks like something else
	node    string // its name
	options []string
}

// nodeNameMax is QEMU's bound on the names of nodes.
const nodeNameMax = 31

func (o *fileOrder) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.path, "file", "", "open this image or block device, by its `PATH`")
	cmd.Flags().StringVar(&o.format, "format", "", "`FORMAT` of --file, raw or qcow2 (default: raw, and what looks like another is refused)")
	cmd.Flags().StringVar(&o.node, "node-name", "", "`NAME` of the node that --file makes")
	cmd.Flags().StringArrayVarP(&o.options, "option", "o", nil, "`KEY=VALUE` for --file, as blockdev-add has them, such as cache.direct=true; may be repeated")
	_ = cmd.MarkFlagFilename("file")
	completes(cmd, "format", "raw", "qcow2")
}

// open makes the node. The server has another working directory, so the path has to be whole.
func (o *fileOrder) open(m *monitor, writable bool) error {
	path, err := filepath.Abs(o.path)
	if err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	args, err := readArguments(o.options)
	if err != nil {
		return err
	}
	args["node-name"], args["read-only"] = o.node, !writable
	switch o.format {
	case "", "raw":
		// It is not opened as what it looks like: who can write to a raw disk could have it name any file.
		if looks := sniff(path); o.format == "" && looks != "raw" {
			return usagef("%s: it looks like %s; add --format %s, or --format raw for the bytes as they are", printable(o.path), looks, looks)
		}
		args["driver"], args["filename"] = protocolDriver(path), path
	case formatQcow2:
		file, isObject := args["file"].(map[string]any)
		if _, given := args["file"]; given && !isObject {
			return usagef("-o file: the file is that of --file; write file.KEY=VALUE for options of it")
		}
		if !isObject {
			file = map[string]any{}
		}
		file["driver"], file["filename"] = protocolDriver(path), path
		args["driver"], args["file"] = formatQcow2, file
	default:
		return usagef("--format %s: use raw or qcow2", printable(o.format))
	}
	return m.ask("blockdev-add", args, nil)
}

// undo closes the node after err.
func (o *fileOrder) undo(m *monitor, err error) error {
	_ = m.ask("blockdev-del", map[string]string{"node-name": o.node}, nil)
	return err
}
