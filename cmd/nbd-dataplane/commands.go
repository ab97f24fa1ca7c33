package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// ownMain is the program under its own name.
func ownMain(c console, args []string) int {
	root := newRoot(c)
	root.SetArgs(guardSizes(args))
	err := root.Execute()
	if errors.Is(err, errVersion) {
		printVersion(c)
		err = nil
	}
	return report(c, doorServe, err)
}

func newRoot(c console) *cobra.Command {
	wantsVersion := new(bool)
	root := &cobra.Command{
		Use:   programName,
		Short: "Serve disk images and block devices over NBD",
		Long: "nbd-dataplane serves disk images and block devices over NBD (network block device), to QEMU, to Linux\n" +
			"(nbd-client) and to every other client. Called through a link named qemu-nbd it takes qemu-nbd's place.",
		Example:       "  nbd-dataplane serve disk.img\n  nbd-dataplane list",
		Args:          cobra.ArbitraryArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if *wantsVersion {
				return errVersion
			}
			if len(args) > 0 {
				return fmt.Errorf("%s: there is no such command; see '%s --help'", args[0], programName)
			}
			return cmd.Help()
		},
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(flagError)
	root.Flags().BoolVarP(wantsVersion, "version", "V", false, "show the version and exit")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(newServe(c), newDaemonCommand(c), newCtl(c), newImage(c), newList(c), newDeviceSize(c), newVersion(c))
	addManPages(root)
	return root
}

func newServe(c console) *cobra.Command {
	o := defaultsOf(doorServe)
	cmd := &cobra.Command{
		Use:                   "serve [OPTION]... FILE|NAME=FILE...",
		DisableFlagsInUseLine: true,
		Short:                 "Serve images and block devices",
		Long: "Serves each FILE as an NBD export. FILE is an image, a block device, nfs://HOST/EXPORT/FILE, null-co://[?size=SIZE],\n" +
			"json:{...}, or with --image-opts a list of options. NAME=FILE gives the export a name; several files need several\n" +
			"names.\n\n" +
			"The options are qemu-nbd's, with three differences: the server listens on the loopback address unless -b says\n" +
			"otherwise, it stays after its last client unless --exit-last is given, and it serves several files at once.",
		Example: "  nbd-dataplane serve disk.img\n" +
			"  nbd-dataplane serve -f raw -k /run/disk.sock --cache=none --discard=unmap /dev/vg/disk\n" +
			"  nbd-dataplane serve --create 10G root=root.img data=data.img\n" +
			"  nbd-dataplane serve disk.img --run 'nbdinfo \"$uri\"'",
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(_ *cobra.Command, args []string) error {
			o.files = args
			if o.list {
				return list(c, o)
			}
			return serve(c, o)
		},
	}
	addFlags(cmd, o, optionsAt(doorServe))
	cmd.SetHelpFunc(serveHelp)
	return cmd
}

// serveHelp is cobra's help with the options in groups.
func serveHelp(cmd *cobra.Command, _ []string) {
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s\n\nExamples:\n%s\n", cmd.Long, cmd.UseLine(), cmd.Example)
	writeOptions(w, doorServe)
}

// listOptions are the options that make sense for a list.
var listOptions = map[string]bool{
	"bind": true, "port": true, "socket": true, "vsock": true, "object": true, "tls-creds": true, "tls-hostname": true,
	"tls-certificates": true,
}

func newList(c console) *cobra.Command {
	o := defaultsOf(doorServe)
	cmd := &cobra.Command{
		Use:                   "list [OPTION]... [URI]",
		DisableFlagsInUseLine: true,
		Short:                 "List the exports of a server",
		Long:                  "Lists the exports of the NBD server at URI, or of the one that the options name. The output is that of qemu-nbd -L.",
		Example:               "  nbd-dataplane list\n  nbd-dataplane list -k /run/disk.sock\n  nbd-dataplane list nbd://server.example:10809",
		Args:                  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o.list = true
			if len(args) == 1 {
				if err := o.readURI(args[0]); err != nil {
					return err
				}
			}
			return list(c, o)
		},
	}
	var rows []*option
	for _, row := range optionsAt(doorServe) {
		if listOptions[row.long] {
			rows = append(rows, row)
		}
	}
	addFlags(cmd, o, rows)
	return cmd
}

func newVersion(c console) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { printVersion(c) },
	}
}

func printVersion(c console) {
	fmt.Fprintf(c.out, "%s %s (%s, %s/%s)\n", programName, version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
