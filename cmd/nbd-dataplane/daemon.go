package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// pastTime is a deadline that is over.
var pastTime = time.Unix(1, 0)

// qsdName is the name that turns the program into qemu-storage-daemon.
const qsdName = "qemu-storage-daemon"

// daemon is one run of the storage daemon: a control plane that the command line and monitors fill. The goroutine that starts and
// stops it owns what stands under no heading.
type daemon struct {
	o        *daemonOptions
	main     *blockcore.AioContext
	graph    *blockcore.Graph
	plane    *control.Plane
	chardevs map[string]*chardev
	pid      *pidFile
	offers   *nbd.Offers // nil without --remember

	// Immutable.
	journal *journal
	haste   haste
	events  *eventQueue
	quit    chan struct{} // holds one
	signals chan os.Signal
}

// qsdMain is the program when called through a link named qemu-storage-daemon.
func qsdMain(c console, argv []string) int {
	return report(c, doorQSD, runDaemon(c, doorQSD, argv[1:]))
}

func newDaemonCommand(c console) *cobra.Command {
	return &cobra.Command{
		Use:   "daemon [OPTION]...",
		Short: "Serve what monitors ask for: qemu-storage-daemon's command line",
		Long: "Takes qemu-storage-daemon's options, in the order given: what one refers to stands before it. Each takes key=value pairs or a JSON\n" +
			"object. Called through a link named qemu-storage-daemon the program does the same.\n\n" + daemonUsage(doorDaemon),
		Example: "  nbd-dataplane daemon --blockdev file,node-name=d,filename=disk.img --nbd-server addr.type=unix,addr.path=/run/nbd.sock \\\n" +
			"    --export nbd,id=e,node-name=d,writable=on --chardev socket,id=m,path=/run/qmp.sock,server=on,wait=off --monitor m",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDaemon(c, doorDaemon, args)
		},
	}
}

// runDaemon is the daemon from start to stop.
func runDaemon(c console, d door, args []string) error {
	o, err := parseDaemon(d, args)
	switch {
	case err != nil:
		return err
	case o.help:
		fmt.Fprintf(c.out, "Usage: %s [OPTION]...\n%s in the part of qemu-storage-daemon; the order of the options counts\n\n%s", o.program(), programName, daemonUsage(d))
		return nil
	case o.kinds != "":
		fmt.Fprint(c.out, o.kinds)
		return nil
	case o.version:
		fmt.Fprintf(c.out, "%s version %s (%s)\n", qsdName, version, programName)
		return nil
	}
	child := inBackground()
	if o.daemonize && child == nil {
		return goToBackground(c, d)
	}
	collectSeldom()
	s := newDaemon(c, o)
	s.signals = takeSignals()
	if err := s.start(); err != nil {
		return errors.Join(err, s.stop())
	}
	if err := child.announce(false); err != nil {
		return firstOf(err, s.stop())
	}
	impatience := 1 // signals from now on that end the process at once
	var seen signalSeen
	select {
	case sig := <-s.signals:
		seen.again(sig)
	case <-s.quit:
		impatience = 2
	}
	if d == doorDaemon {
		go s.signalLoop(seen, impatience)
	}
	return s.haste.status(s.stop())
}

func (o *daemonOptions) program() string {
	if o.door == doorQSD {
		return qsdName
	}
	return programName + " daemon"
}

func newDaemon(c console, o *daemonOptions) *daemon {
	s := &daemon{o: o, chardevs: map[string]*chardev{}, quit: make(chan struct{}, 1)}
	s.journal = &journal{door: o.door, log: daemonLogger(o.door, c.err), err: c.err}
	s.events = newEventQueue(s.journal.record, func(uint64) {})
	s.journal.events = s.events
	s.haste = haste{journal: s.journal, stopped: make(chan struct{})}
	return s
}

// daemonLogger returns the log; qemu-storage-daemon has none.
func daemonLogger(d door, to io.Writer) zerolog.Logger {
	if d == doorQSD {
		return zerolog.Nop()
	}
	return newLogger(defaultsOf(doorServe), to)
}

// start does what the options say, one after the other.
func (s *daemon) start() (err error) {
	if s.main, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: "main-loop"}); err != nil {
		return err
	}
	s.graph = blockcore.NewGraphWith(blockcore.GraphOptions{Main: s.main, OnEvent: s.onGraphEvent})
	if s.offers, err = rememberedIn(s.o.remember, s.journal.warn); err != nil {
		return err
	}
	s.plane = newPlane(control.Options{Graph: s.graph, Main: s.main, Quit: s.end, OnEvent: s.onEvent, OnStorage: func(e control.StorageHealth) { s.events.put(e) }, Offers: s.offers}, s.journal)
	for _, step := range s.o.steps {
		if err := s.do(step); err != nil {
			return wrong(step.words+": "+ownText(err), step.words+": "+qemuText(err)+hintOf(err))
		}
	}
	if s.o.pidFile != "" {
		if s.pid, err = writePIDFile(s.o.pidFile); err != nil {
			return wrong(ownText(err), "cannot create PID file: "+qemuText(err))
		}
	}
	s.letMonitorsIn()
	return nil
}

// letMonitorsIn comes last, so that no monitor finds half of what the command line asks for.
func (s *daemon) letMonitorsIn() {
	for _, c := range s.chardevs {
		if c.taken {
			c.serve(s.plane.Monitor())
		}
	}
}

// hintOf is what QEMU prints below an error.
func hintOf(err error) string {
	detailed, ok := errors.AsType[*qmp.Detailed](err)
	if !ok {
		return ""
	}
	hint, _ := detailed.Detail.(string)
	return "\n" + hint
}

func (s *daemon) end() {
	select {
	case s.quit <- struct{}{}:
	default:
	}
}

func (s *daemon) onEvent(e nbd.Event) { s.events.put(e) }

func (s *daemon) onGraphEvent(e blockcore.Event) {
	s.events.put(e)
	s.plane.TellGraph(e)
}

// impliedKeys are the keys of a first part without "=".
var impliedKeys = map[string]string{"blockdev": "driver", "export": "type", "object": "qom-type", "monitor": "chardev"}

// do is one option's turn.
func (s *daemon) do(step daemonStep) error {
	if step.option == "chardev" {
		return s.addChardev(step)
	}
	v, err := qmp.ParseOption(step.text, impliedKeys[step.option])
	if err != nil {
		return err
	}
	switch step.option {
	case "blockdev":
		err = s.plane.AddBlockdev(context.Background(), v)
	case "object":
		err = s.plane.AddObject(v)
	case "nbd-server":
		err = s.plane.StartServer(v)
	case "export":
		err = s.plane.AddExport(context.Background(), v)
	case "monitor":
		err = s.addMonitor(v)
	}
	return err
}

func (s *daemon) addChardev(step daemonStep) error {
	text, warnings := longForm(step.text)
	for _, w := range warnings {
		s.journal.warnOf(step.words, w)
	}
	if strings.HasPrefix(text, "tty,") {
		s.journal.warnOf(step.words, "The alias 'tty' is deprecated, use 'serial' instead")
	}
	id, c, err := makeChardev(text)
	if err != nil {
		return err
	}
	if c.stdio && s.hasStdio() {
		return qmp.Errorf("cannot use stdio by multiple character devices")
	}
	if _, taken := s.chardevs[id]; taken {
		c.close()
		if c.place != nil && c.place.network != "pty" {
			return qmp.Errorf("duplicate yank instance")
		}
		return qmp.Errorf("attempt to add duplicate property '%s' to object (type 'container')", id)
	}
	if c.place != nil && c.place.network == "pty" {
		fmt.Printf("char device redirected to %s (label %s)\n", c.place.path, id)
	}
	c.words = step.words
	s.chardevs[id] = c
	return nil
}

// hasStdio says whether a chardev has the standard input and output.
func (s *daemon) hasStdio() bool {
	for _, c := range s.chardevs {
		if c.stdio {
			return true
		}
	}
	return false
}

// addMonitor chooses a chardev for monitors to come in by.
func (s *daemon) addMonitor(v qmp.Value) error {
	var a struct {
		Chardev string  `qmp:"chardev"`
		ID      *string `qmp:"id"`
		Mode    string  `qmp:"mode,optional,enum=control|readline"`
		Pretty  bool    `qmp:"pretty,optional"`
	}
	if err := v.Decode(&a); err != nil {
		return err
	}
	c := s.chardevs[a.Chardev]
	switch {
	case c == nil:
		return qmp.Errorf(`chardev "%s" not found`, a.Chardev)
	case a.Mode == "readline":
		return qmp.Errorf("Only QMP is supported")
	case c.taken:
		return qmp.Errorf("Device '%s' is in use", a.Chardev)
	}
	c.taken, c.pretty = true, a.Pretty
	return c.meet(s.signals, s.journal)
}

// signalLoop ends the process at the last of so many signals, for people who cannot wait for storage; qemu-storage-daemon
// does not hear a second one.
func (s *daemon) signalLoop(seen signalSeen, count int) {
	for sig := range s.signals {
		if seen.again(sig) {
			continue
		}
		if count--; count > 0 {
			continue
		}
		if !s.hasten(fmt.Sprintf("second signal (%v)", sig)) {
			s.abandon(secondSignal(sig))
		}
		return
	}
}

// stop takes everything down in order. There is a limit to how long that may take.
func (s *daemon) stop() error {
	var errs []error
	guard := guardStop(s.o.stop, s.graph, s.hasten, s.abandon)
	defer guard.done()
	defer close(s.haste.stopped)
	guard.step("waiting for requests in flight, and flushing and closing what there is")
	for _, c := range s.chardevs {
		c.close()
	}
	if s.plane != nil {
		releaseHeld(s.graph)
		errs = append(errs, s.plane.Close())
	}
	guard.step("ending the event loops", errs...)
	if s.main != nil {
		s.main.Close()
	}
	if s.offers != nil {
		errs = append(errs, s.offers.Close())
	}
	s.events.close()
	if s.pid != nil {
		s.pid.remove()
	}
	return errors.Join(errs...)
}
