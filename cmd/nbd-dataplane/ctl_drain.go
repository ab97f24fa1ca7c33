package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// drainVariable tells the command of a drain the id of its section.
const drainVariable = "NBD_DATAPLANE_DRAIN"

// drainOrder is what to hold still and how.
type drainOrder struct {
	lease   secondsValue
	timeout secondsValue // for what is in flight
	noFlush bool
	command []string // to run meanwhile; none = until Ctrl-C
	program string   // the file of command[0]
}

func (t *ctl) newDrain() *cobra.Command {
	o := &drainOrder{lease: secondsValue{"lease", 30 * time.Second}, timeout: secondsValue{flag: "timeout"}}
	cmd := &cobra.Command{
		Use:   "drain EXPORT|NODE... [flags] [-- CMD [ARG...]]",
		Short: "Hold exports still, while a command runs",
		Long: "Holds exports still, all at one instant: what clients have begun is finished and flushed, what they ask from then on waits.\n" +
			"They see latency and no error. With CMD the section lasts as long as CMD runs, and its lease is renewed; without, until\n" +
			"Ctrl-C or the end of the lease. It also ends when this program does, however that happens: CMD gets a SIGTERM then.\n\n" +
			"Use it to take a snapshot of the storage below several exports: a state in which all that was acknowledged is there.\n\n" +
			"The exit status is that of CMD (128 and the number of a signal that ended it); 125 says that the section was lost before\n" +
			"CMD ended, 126 and 127 that CMD cannot be run, and nothing is held still. Where the section did not begin, CMD is not run\n" +
			"and the status is that of 'ctl'. CMD finds the section's id in " + drainVariable + "; signals are passed on to it.",
		Example: "  nbd-dataplane ctl drain root data -- lvcreate -s -n snap vg/disks\n" +
			"  nbd-dataplane ctl drain root --lease 5m",
		Args:                  t.args(1, -1, "the exports to hold still"),
		ValidArgsFunction:     t.beforeDash(t.complete(exportIDs, nodeNames)),
		DisableFlagsInUseLine: true,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			args, o.command = args[:dash], args[dash:]
		}
		switch {
		case len(args) == 0:
			return usagef("%s: name the exports to hold still before the '--'", shortPath(cmd))
		case cmd.ArgsLenAtDash() >= 0 && len(o.command) == 0:
			return usagef("%s: there is no command behind the '--'", shortPath(cmd))
		}
		if err := o.lookUp(); err != nil {
			return err
		}
		return t.run(func(m *monitor, names []string) error { return t.drain(m, names, o) })(cmd, args)
	}
	cmd.Flags().Var(&o.lease, "lease", "how long the section lasts unless it is renewed, and the longest that it outlives this program")
	cmd.Flags().Var(&o.timeout, "timeout", "give up when requests in flight have not ended by then (default 30s); new ones wait meanwhile")
	cmd.Flags().BoolVar(&o.noFlush, "no-flush", false, "do not flush what was acknowledged")
	return cmd
}

func (t *ctl) drain(m *monitor, names []string, o *drainOrder) error {
	covered, err := m.covered(names)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	s := &section{t: t, m: m, order: o, signals: signals, ended: make(chan string, 1)}
	if err := s.begin(covered); err != nil {
		return err
	}
	go s.watchLoop()
	if len(o.command) > 0 {
		return s.during()
	}
	fmt.Fprintf(t.c.err, "%s held still (%s) for %v; Ctrl-C ends it\n", joined(names), s.id, o.lease.d)
	return s.hold()
}

// covered is what a section holds still.
type covered struct {
	exports []string // ids
	names   []string // of the same, as requests are listed
	nodes   []string
	disks   []string // nodes of exports
}

// covered sorts the names into exports and nodes.
func (m *monitor) covered(names []string) (c covered, err error) {
	c.exports, c.nodes = []string{}, []string{}
	for _, name := range names {
		at, err := m.target(name)
		switch {
		case err != nil:
			return c, err
		case at.export != nil:
			c.exports, c.names = append(c.exports, at.export.ID), append(c.names, at.export.Name)
			c.disks = append(c.disks, at.node)
		default:
			c.nodes = append(c.nodes, at.node)
		}
	}
	return c, nil
}

// section is a drained section that this program holds.
type section struct {
	// Immutable.
	t       *ctl
	m       *monitor
	order   *drainOrder
	signals <-chan os.Signal
	id      string
	ended   chan string // why it has ended without us; holds one
}

// begin asks for the section, and tells whom it waits for when that takes time.
func (s *section) begin(c covered) error {
	ctx, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	answer := make(chan error, 1)
	var begun struct {
		ID string `json:"id"`
	}
	args := map[string]any{"exports": c.exports, "nodes": c.nodes, "lease": s.order.lease.seconds(), "flush": !s.order.noFlush}
	if s.order.timeout.d != 0 {
		args["timeout"] = s.order.timeout.seconds()
	}
	go s.beginOnce(ctx, args, &begun, answer)
	waiting := newWaitingFor(s.t, c)
	defer waiting.close()
	for {
		select {
		case err := <-answer:
			s.id = begun.ID
			return err
		case <-waiting.tick.C:
			waiting.tell()
		case sig := <-s.signals:
			fmt.Fprintf(s.t.c.err, "%s: %v: the drain is given up\n", programName, sig)
			return exitStatus(statusOf(syscall.WaitStatus(sig.(syscall.Signal))))
		}
	}
}

func (s *section) beginOnce(ctx context.Context, args map[string]any, begun any, answer chan<- error) {
	answer <- s.m.askWithin(ctx, "x-drain-begin", args, begun)
}

// watchLoop notices that the section has ended without us. It ends then, or with the connection.
func (s *section) watchLoop() {
	for event := range s.m.Events() {
		var data struct {
			ID     string `json:"id"`
			Reason string `json:"reason"`
		}
		if event.Name == "X_DRAIN_ENDED" && readJSON(event.Data, &data) && data.ID == s.id {
			s.ended <- data.Reason
			return
		}
	}
	s.ended <- "the connection to the server was lost"
}

// hold waits for a signal or the end of the lease.
func (s *section) hold() error {
	select {
	case <-s.signals:
		return s.end()
	case why := <-s.ended:
		if why == reasonExpired {
			s.t.say("the lease is over")
			return nil
		}
		return unreachable("the drained section ended: %s", printable(why))
	}
}

// reasonExpired is what the server says when a lease ends by itself.
const reasonExpired = "lease expired"

// end ends the section. It asks for no longer than a lease: there is no section any more by then.
func (s *section) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.order.lease.d)
	defer cancel()
	return s.m.askWithin(ctx, "x-drain-end", map[string]string{"id": s.id}, nil)
}

// during runs the command and returns its status. A section that is lost does not end the command: half of what it does may be
// worse than all of it.
func (s *section) during() error {
	process, finished, err := s.start()
	if err != nil {
		return errors.Join(err, s.end())
	}
	renew := time.NewTicker(s.order.lease.d / renewals)
	defer renew.Stop()
	lost := false
	for {
		select {
		case status := <-finished:
			return s.finish(status, lost)
		case <-renew.C:
			if err := s.renew(); err != nil && !lost {
				lost = s.lose(err.Error())
			}
		case why := <-s.ended:
			if !lost {
				lost = s.lose(why)
			}
		case sig := <-s.signals:
			if sig != syscall.SIGINT || !inForeground() { // else the terminal has sent it to the command, too
				_ = process.Signal(sig)
			}
		}
	}
}

// finish ends the section behind its command, and says so if it may have ended before.
func (s *section) finish(status syscall.WaitStatus, lost bool) error {
	if err := s.end(); err != nil && !lost {
		lost = true
		fmt.Fprintf(s.t.c.err, "%s: requests may have run again before the command ended: %s\n", programName, printable(err.Error()))
	}
	if lost {
		return exitStatus(statusSectionLost)
	}
	return exitOrNil(statusOf(status))
}

// renewals is how often a lease is renewed before it would end.
const renewals = 3

func (s *section) renew() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.order.lease.d/renewals)
	defer cancel()
	return s.m.askWithin(ctx, "x-drain-renew", map[string]any{"id": s.id, "lease": s.order.lease.seconds()}, nil)
}

// lose says so at once; the status follows when the command has ended.
func (s *section) lose(why string) bool {
	fmt.Fprintf(s.t.c.err, "%s: requests run again although the command has not ended: %s\n", programName, printable(why))
	return true
}
