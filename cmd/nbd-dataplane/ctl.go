package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// ctl is one run of "nbd-dataplane ctl": people's way to a running server. What it does is in the monitor's commands; here are
// words for them, names instead of ids, and tables.
type ctl struct {
	// Immutable.
	c console

	// Set by the command line before anything runs.
	path   string // of --control; "" = look for it
	asJSON bool
}

func newCtl(c console) *cobra.Command {
	t := &ctl{c: c}
	cmd := &cobra.Command{
		Use:   "ctl [--control PATH] COMMAND",
		Short: "Look at and change a running server",
		Long: "Looks at a running server and changes it while its clients go on. The server is one that was started with --control PATH.\n" +
			"Which one is said by --control, or by " + controlVariable + " in the environment, or it is the only one with a\n" +
			"socket *.ctl in a run directory (" + runDirectoryText + ").\n\n" +
			"Exit status: 0 done; 1 the server refused, or something failed; 2 the command line is wrong; 3 no connection to a\n" +
			"server, or it was lost; 4 what was named is not there; 5 it is in use; 6 requests in flight did not end in time.\n" +
			"'ctl drain ... -- CMD' exits with the status of CMD.",
		Example: "  nbd-dataplane ctl status\n" +
			"  nbd-dataplane ctl drain root data -- lvcreate -s -n snap vg/disks\n" +
			"  nbd-dataplane ctl snapshot create root data\n" +
			"  nbd-dataplane ctl resize root +10G\n" +
			"  nbd-dataplane ctl throttle root --bps 50M --iops 2000",
		DisableFlagsInUseLine: true,
		Args:                  t.args(0, 0, ""),
		RunE:                  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageFailure(flagError(cmd, err)) })
	cmd.PersistentFlags().StringVar(&t.path, "control", "", "`PATH` of the server's control socket")
	cmd.PersistentFlags().BoolVar(&t.asJSON, "json", false, "print JSON, for programs")
	for _, group := range []struct {
		title string
		parts []func() *cobra.Command
	}{
		{"Look:", []func() *cobra.Command{t.newStatus, t.newGraph, t.newClients, t.newInflight, t.newDrains, t.newEvents}},
		{"Change what clients meet:", []func() *cobra.Command{t.newDrain, t.newSnapshot, t.newResize, t.newThrottle, t.newTimeout, t.newExport, t.newDisconnect}},
		{"Change what is below:", []func() *cobra.Command{t.newMove, t.newInsert, t.newRemove, t.newReplace}},
		{"Everything else:", []func() *cobra.Command{t.newQMP}},
	} {
		cmd.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, part := range group.parts {
			sub := part()
			sub.GroupID = group.title
			cmd.AddCommand(sub)
		}
	}
	return cmd
}

// args checks the number of arguments; most < 0 is any number.
func (t *ctl) args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s: name %s; see '%s --help'", shortPath(cmd), what, cmd.CommandPath())
		case most == 0 && len(args) > 0 && cmd.HasSubCommands():
			return usagef("%s: there is no such command; see '%s --help'", args[0], cmd.CommandPath())
		case most >= 0 && len(args) > most:
			return usagef("%s: %s is too much; see '%s --help'", shortPath(cmd), printable(args[most]), cmd.CommandPath())
		}
		return nil
	}
}

// shortPath is the command without the program, which stands before every error.
func shortPath(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), programName+" ")
}

// run makes a cobra command of one that needs a connection.
func (t *ctl) run(do func(m *monitor, args []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		m, err := t.connect()
		if err != nil {
			return err
		}
		defer m.Close()
		return do(m, args)
	}
}
