package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func (t *ctl) newTimeout() *cobra.Command {
	return &cobra.Command{
		Use:   "timeout EXPORT|NODE TIME|none",
		Short: "Set how long requests wait for an NFS server",
		Long: "Sets how long each request to the files on NFS below an export or a node waits for a server that does not answer, before it\n" +
			"fails with an I/O error, in seconds or as 30s, 5m, 1h; with none it waits for ever, as without timeout= in the URL. It counts at once, also for\n" +
			"requests that wait already: a short time ends those of a server that will not come back, for clients that are to stay. Clients\n" +
			"that are not: 'disconnect' and 'export del --hard' end requests without it.\n\n" +
			"A write that failed so may still be executed by the server, late.",
		Example:               "  nbd-dataplane ctl timeout data 30\n  nbd-dataplane ctl timeout data none",
		Args:                  t.args(2, 2, "an export or a node, and a time"),
		ValidArgsFunction:     t.completeFirst(exportIDs, nodeNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(func(m *monitor, args []string) error { return t.timeout(m, args[0], args[1]) }),
	}
}

// timeoutAnswer is a file whose timeout was changed.
type timeoutAnswer struct {
	Node    string `json:"node-name"`
	File    string `json:"file"`
	Was     int64  `json:"was"`
	Timeout int64  `json:"timeout"`
}

func (t *ctl) timeout(m *monitor, name, text string) error {
	seconds, err := storageTimeout(text)
	if err != nil {
		return err
	}
	at, err := m.target(name)
	if err != nil {
		return err
	}
	var changed []timeoutAnswer
	if err := m.ask("x-blockdev-set-timeout", map[string]any{"node-name": at.node, "timeout": seconds}, &changed); err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(changed)
	}
	for i := range changed {
		c := &changed[i]
		t.say("%s (%s): %s, was %s", printable(c.Node), printable(c.File), timeoutText(c.Timeout), timeoutText(c.Was))
	}
	return nil
}

// storageTimeoutMax is the server's bound: a year.
const storageTimeoutMax = 365 * 24 * time.Hour

// storageTimeout reads a number of seconds, a time, or "none".
func storageTimeout(text string) (seconds int64, err error) {
	if text == "none" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if n, notNumber := strconv.ParseUint(text, 10, 26); notNumber == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < time.Second || d > storageTimeoutMax || d%time.Second != 0 {
		return 0, usagef("%s: use whole seconds, such as 30, 30s or 5m, up to a year, or none", printable(text))
	}
	return int64(d / time.Second), nil
}

func timeoutText(seconds int64) string {
	if seconds == 0 {
		return "requests wait for ever"
	}
	return "requests wait " + (time.Duration(seconds) * time.Second).String()
}
