package main

import (
	"fmt"
	"maps"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/nfs"
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
	cmd.Flags().StringVar(&o.path, "file", "", "open this image or block device, by its `PATH`, or nfs://...")
	cmd.Flags().StringVar(&o.format, "format", "", "`FORMAT` of --file, raw or qcow2 (default: raw, and what looks like another is refused)")
	cmd.Flags().StringVar(&o.node, "node-name", "", "`NAME` of the node that --file makes")
	cmd.Flags().StringArrayVarP(&o.options, "option", "o", nil, "`KEY=VALUE` for --file, as blockdev-add has them, such as cache.direct=true; may be repeated")
	_ = cmd.MarkFlagFilename("file")
	completes(cmd, "format", "raw", "qcow2")
}

// wholeName is the value of --file for a server, which has another working directory.
func wholeName(file string) (string, error) {
	if nfs.IsURL(file) {
		return file, nil
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("--file: %w", err)
	}
	return path, nil
}

// protocol is how blockdev-add opens a file, whatever is in it, and what that looks like.
func (o *fileOrder) protocol() (fields map[string]any, looks string, err error) {
	if nfs.IsURL(o.path) {
		options, err := nfsURL(o.path, func([]string) {})
		if err != nil {
			return nil, "", err
		}
		return nfsFields(&options), sniffNFS(options, false), nil
	}
	path, err := wholeName(o.path)
	return map[string]any{"driver": protocolDriver(path), "filename": path}, sniff(path), err
}

// open makes the node.
func (o *fileOrder) open(m *monitor, writable bool) error {
	protocol, looks, err := o.protocol()
	if err != nil {
		return err
	}
	args, err := readArguments(o.options)
	if err != nil {
		return err
	}
	args["node-name"], args["read-only"] = o.node, !writable
	switch o.format {
	case "", "raw":
		// It is not opened as what it looks like: who can write to a raw disk could have it name any file.
		if o.format == "" && looks != "raw" {
			return usagef("%s: it looks like %s; add --format %s, or --format raw for the bytes as they are", printable(o.path), looks, looks)
		}
		maps.Copy(args, protocol)
	case formatQcow2:
		file, isObject := args["file"].(map[string]any)
		if _, given := args["file"]; given && !isObject {
			return usagef("-o file: the file is that of --file; write file.KEY=VALUE for options of it")
		}
		if !isObject {
			file = map[string]any{}
		}
		maps.Copy(file, protocol)
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
