package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func (t *ctl) newClients() *cobra.Command {
	return &cobra.Command{
		Use:   "clients",
		Short: "List the connected clients",
		Long: "Lists the clients that have opened an export. REMARK tells of those whose requests wait for the end of a drained section,\n" +
			"of those that owe something: the rest of a request that has begun to arrive, or the reading of their replies; and of those\n" +
			"that are leaving: their requests in flight are waited for.",
		Args: t.args(0, 0, ""),
		RunE: t.run(t.clients),
	}
}

func (t *ctl) clients(m *monitor, _ []string) error {
	var clients []clientAnswer
	raw, err := m.query("x-query-clients", nil, &clients)
	if err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(raw)
	}
	if len(clients) == 0 {
		fmt.Fprintln(t.c.out, "no clients")
		return nil
	}
	list := newTable(">ID", "EXPORT", "PEER", ">CONNECTED", ">IN FLIGHT", ">REQUESTS", ">FAILED", ">READ", ">WRITTEN", "REMARK")
	for i := range clients {
		c := &clients[i]
		list.row(c.ID, printable(c.Export), printable(c.Peer), ageText(time.Duration(c.Seconds)*time.Second), c.InFlight, c.Requests, c.Failed,
			sizeText(c.Read), sizeText(c.Written), c.remark())
	}
	list.write(t.c.out)
	return nil
}

func (c *clientAnswer) remark() string {
	switch {
	case c.Leaving && c.InFlight > 0:
		return "is leaving when its requests in flight have ended"
	case c.Leaving:
		return "is leaving"
	case c.Held:
		return "waits for the end of a drained section"
	case c.Receiving != "":
		return "has sent a part of a " + printable(c.Receiving)
	case c.Sending:
		return "does not read its replies"
	}
	return ""
}

func (t *ctl) newDisconnect() *cobra.Command {
	return &cobra.Command{
		Use:   "disconnect CLIENT-ID",
		Short: "Throw a client out",
		Long: "Cuts the connection of one client at once; 'ctl clients' tells the ids. Its requests in flight finish, or end where they\n" +
			"wait for an NFS server and no other client depends on them, and their replies are dropped; until then it is listed as leaving.\n" +
			"What has not begun is not executed. A client that reconnects by itself (QEMU with reconnect-delay, the kernel) comes back under another id.",
		Args:              t.args(1, 1, "a client by its id"),
		ValidArgsFunction: t.completeFirst(clientIDs),
		RunE:              t.run(t.disconnect),
	}
}

func (t *ctl) disconnect(m *monitor, args []string) error {
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return usagef("%s: a client's id is a number; 'ctl clients' lists them", printable(args[0]))
	}
	var clients []clientAnswer
	if _, err := m.query("x-query-clients", nil, &clients); err != nil {
		return err
	}
	for i := range clients {
		if clients[i].ID != id {
			continue
		}
		if err := m.ask("x-client-disconnect", map[string]uint64{"id": id}, nil); err != nil {
			return err
		}
		t.say("client %d (%s) disconnected from %s", id, printable(clients[i].Peer), printable(clients[i].Export))
		return nil
	}
	return notFound("there is no client %d; 'ctl clients' lists them", id)
}

func (t *ctl) newInflight() *cobra.Command {
	watch := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "inflight",
		Short: "List the requests in flight, the oldest first",
		Long: "Lists the requests that are in flight, the oldest first: in which node each one is, for whom, since when. Requests that were\n" +
			"begun and wait for the end of a drained section are held; those that are not begun are not listed, see 'ctl clients'. What a\n" +
			"node does by itself, such as a flush ahead of a drained section, is listed with that node for a client.",
		Args: t.args(0, 0, ""),
		RunE: t.run(func(m *monitor, _ []string) error { return t.inflight(m, watch) }),
	}
	cmd.Flags().DurationVar(&watch, "watch", 0, "repeat until Ctrl-C, after this `TIME` each (default 1s)")
	cmd.Flag("watch").NoOptDefVal = "1s"
	return cmd
}

func (t *ctl) inflight(m *monitor, watch time.Duration) error {
	if err := t.printInflight(m); err != nil || watch <= 0 {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	tick := time.NewTicker(watch)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
			if isTerminal(t.c.out) && !t.asJSON {
				fmt.Fprint(t.c.out, "\x1b[H\x1b[J")
			}
			if err := t.printInflight(m); err != nil || t.c.unheard() {
				return err
			}
		}
	}
}

func (t *ctl) printInflight(m *monitor) error {
	var requests []requestAnswer
	raw, err := m.query("x-query-inflight", nil, &requests)
	if err != nil {
		return err
	}
	if t.asJSON {
		return t.printJSON(raw)
	}
	if len(requests) == 0 {
		fmt.Fprintln(t.c.out, "nothing is in flight")
		return nil
	}
	list := newTable(">AGE", "OP", ">OFFSET", ">LENGTH", "EXPORT", "IN NODE", "CLIENT")
	for i := range requests {
		q := &requests[i]
		where := printableOr(q.Node, "")
		if q.Held {
			where = "held"
		}
		who := printableOr(q.Client, "")
		if q.By != "" {
			who = "node " + printable(q.By)
		}
		list.row(ageText(microseconds(q.AgeUS)), printable(q.Op), fmt.Sprintf("%#x", q.Offset), sizeText(q.Length), printableOr(q.Export, ""), where, who)
	}
	list.write(t.c.out)
	return nil
}
