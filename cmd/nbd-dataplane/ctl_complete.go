package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// completionMax bounds the questions of a completion: somebody waits with his finger on the key.
const completionMax = 500 * time.Millisecond

// names is a question for what can be completed, with an explanation behind a tab.
type names func(ctx context.Context, m *monitor) []cobra.Completion

// complete offers names for every argument, without those that are there already.
func (t *ctl) complete(from ...names) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return t.offer(args, from...), cobra.ShellCompDirectiveNoFileComp
	}
}

// beforeDash is a completion of what stands before a "--". Behind it is a command, whose files the shell knows. The command line is looked at as it
// came: cobra parses it once with a "--" of its own at the end, which cannot be told from one that was there.
func (t *ctl) beforeDash(names cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if slices.Contains(os.Args, "--") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return names(cmd, args, word)
	}
}

// completeFirst offers names for the first argument only.
func (t *ctl) completeFirst(from ...names) cobra.CompletionFunc { return t.completeEach(from) }

// completeEach offers names for each argument by its place.
func (t *ctl) completeEach(places ...[]names) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= len(places) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return t.offer(args, places[len(args)]...), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag offers names for the value of a flag.
func (t *ctl) completeFlag(cmd *cobra.Command, flag string, from ...names) {
	// The only error is that of a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc(flag, t.complete(from...))
}

// offer asks the running server. Where there is none, nothing is offered.
func (t *ctl) offer(given []string, from ...names) []cobra.Completion {
	ctx, cancel := context.WithTimeout(context.Background(), completionMax)
	defer cancel()
	m, err := t.connectWithin(ctx)
	if err != nil {
		return nil
	}
	defer m.Close()
	var all []cobra.Completion
	for _, ask := range from {
		all = append(all, ask(ctx, m)...)
	}
	return slices.DeleteFunc(all, func(c cobra.Completion) bool {
		return slices.ContainsFunc(given, func(have string) bool {
			return c == have || len(c) > len(have) && c[:len(have)] == have && c[len(have)] == '\t'
		})
	})
}

func exportIDs(ctx context.Context, m *monitor) (ids []cobra.Completion) {
	var exports []exportAnswer
	_ = m.askWithin(ctx, "query-block-exports", nil, &exports)
	for i := range exports {
		e := &exports[i]
		ids = append(ids, cobra.CompletionWithDesc(e.ID, fmt.Sprintf("export of %s, %s", printable(e.Node), sizeText(e.Size))))
	}
	return ids
}

func nodeNames(ctx context.Context, m *monitor) (found []cobra.Completion) {
	var nodes []nodeAnswer
	_ = m.askWithin(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes)
	for i := range nodes {
		n := &nodes[i]
		found = append(found, cobra.CompletionWithDesc(n.Name, fmt.Sprintf("node, %s %s", n.Driver, printableOr(n.File, sizeText(n.Image.Size)))))
	}
	return found
}

func clientIDs(ctx context.Context, m *monitor) (ids []cobra.Completion) {
	var clients []clientAnswer
	_ = m.askWithin(ctx, "x-query-clients", nil, &clients)
	for i := range clients {
		c := &clients[i]
		ids = append(ids, cobra.CompletionWithDesc(fmt.Sprint(c.ID), fmt.Sprintf("%s on %s", printable(c.Peer), printable(c.Export))))
	}
	return ids
}

func ioThreads(ctx context.Context, m *monitor) []cobra.Completion {
	return objectNames(ctx, m, typeIOThread, "event loop")
}

func throttleGroups(ctx context.Context, m *monitor) []cobra.Completion {
	return objectNames(ctx, m, typeGroup, "throttle group")
}

func objectNames(ctx context.Context, m *monitor, kind, what string) (found []cobra.Completion) {
	var objects []objectAnswer
	_ = m.askWithin(ctx, "qom-list", map[string]string{"path": "/objects"}, &objects)
	for _, o := range objects {
		if o.Type == kind {
			found = append(found, cobra.CompletionWithDesc(o.Name, what))
		}
	}
	return found
}

// commandNames are what the monitor understands.
func commandNames(ctx context.Context, m *monitor) (found []cobra.Completion) {
	var commands []struct {
		Name string `json:"name"`
	}
	_ = m.askWithin(ctx, "query-commands", nil, &commands)
	for _, c := range commands {
		found = append(found, c.Name)
	}
	return found
}
