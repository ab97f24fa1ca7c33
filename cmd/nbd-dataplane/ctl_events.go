package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/control"
	"nbd-dataplane/qmp"
)

func (t *ctl) newEvents() *cobra.Command {
	count := 0
	cmd := &cobra.Command{
		Use:   "events [EVENT...] [flags]",
		Short: "Follow what happens in the server",
		Long: "Prints what happens in the server, one event a line, until Ctrl-C: all events, or those that are named. With --json each line\n" +
			"is the event as QMP has it.",
		Example:               "  nbd-dataplane ctl events\n  nbd-dataplane ctl events --json X_CLIENT_CONNECTED X_CLIENT_DISCONNECTED",
		Args:                  t.args(0, -1, ""),
		ValidArgsFunction:     cobra.FixedCompletions(control.Events, cobra.ShellCompDirectiveNoFileComp),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("count") && count < 1 {
				return usagef("--count %d: use a number of events, from 1 on", count)
			}
			return t.run(func(m *monitor, args []string) error { return t.events(m, args, count) })(cmd, args)
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "end after `N` events")
	return cmd
}

func (t *ctl) events(m *monitor, wanted []string, count int) error {
	for _, name := range wanted {
		if !slices.Contains(control.Events, name) {
			t.c.warn(printable(name) + ": this program knows no such event, and waits for it all the same")
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	for seen := 0; count <= 0 || seen < count; {
		select {
		case <-stop:
			return nil
		case event, open := <-m.Events():
			if !open {
				return unreachable("%s: the server has closed the connection", m.path)
			}
			if len(wanted) > 0 && !slices.Contains(wanted, event.Name) {
				continue
			}
			seen++
			if err := t.printEvent(event); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *ctl) printEvent(event qmp.Event) error {
	if t.asJSON {
		encoder := json.NewEncoder(t.c.out)
		encoder.SetEscapeHTML(false)
		when := map[string]int64{"seconds": event.Time.Unix(), "microseconds": int64(event.Time.Nanosecond() / 1000)}
		return encoder.Encode(map[string]any{"event": event.Name, "timestamp": when, "data": event.Data})
	}
	_, err := fmt.Fprintln(t.c.out, strings.TrimRight(fmt.Sprintf("%s  %s  %s", event.Time.Format("15:04:05.000"), event.Name, eventText(event.Data)), " "))
	return err
}

// eventText is the data of an event as key=value, in the order of the keys.
func eventText(data json.RawMessage) string {
	var members map[string]json.RawMessage
	if !readJSON(data, &members) {
		return string(data)
	}
	var parts []string
	for key, value := range members {
		text := string(bytes.TrimSpace(value))
		var word string
		if readJSON(value, &word) {
			text = printable(word)
			if strings.ContainsAny(word, " =") {
				text = fmt.Sprintf("%q", word)
			}
		}
		parts = append(parts, key+"="+text)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}
