package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// serve runs the server that the options describe, from start to stop.
func serve(c console, o *options) error {
	if err := o.check(); err != nil {
		return err
	}
	child := inBackground()
	if o.fork && child == nil {
		return goToBackground(c, o.door)
	}
	collectSeldom()
	j := &journal{door: o.door, log: loggerOf(o, c.err), err: c.err}
	s := newSession(o, j)
	signals := takeSignals()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.announce(c.out, child); err != nil {
		return firstOf(err, s.stop())
	}
	go s.signalLoop(signals)
	err := firstOf(s.wait(), s.stop())
	if s.abandoned.Load() {
		return exitStatus(1) // it was quicker than the last word, but somebody has been told so
	}
	return s.haste.status(err)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// announce tells everybody who waits for it that clients can connect.
func (s *session) announce(out io.Writer, child *background) error {
	for n, node := range s.nodes {
		img := &s.images[n]
		s.journal.log.Info().Str("export", s.exports[n]).Str("image", img.display).Int64("size", node.Size()).
			Bool("writable", !img.raw.ReadOnly).Str("engine", node.Context().EngineName()).Msg("export ready")
	}
	for _, p := range s.places {
		for _, name := range s.exports {
			uri := p.uri(name, s.isTLS())
			s.journal.log.Info().Str("uri", uri).Msg("serving")
			if s.o.printURI {
				fmt.Fprintln(out, uri)
			}
		}
	}
	return child.announce(s.o.verbose)
}

// takeSignals subscribes to the signals that stop the server. A reader of our output that goes away is no reason to die;
// SIGPIPE is taken and not ignored, since the command of --run would inherit that.
func takeSignals() chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return signals
}

// echoMax is within how long a signal that comes twice is one: timeout(1), and whoever else ends both a process and its group, sends it twice
// in a row. Nobody is as quick who has lost patience.
const echoMax = 200 * time.Millisecond

// signalSeen is the signal that came last.
type signalSeen struct {
	sig os.Signal
	at  time.Time
}

// again reports whether a signal is the last one once more, and notes it down otherwise.
func (s *signalSeen) again(sig os.Signal) bool {
	now := time.Now()
	if sig == s.sig && now.Sub(s.at) < echoMax {
		return true
	}
	*s = signalSeen{sig, now}
	return false
}

// signalLoop has the first signal stop the server in order, unless it is stopping already. A second one ends the process
// at once, for people who cannot wait for clients, storage and the command of --run; what was promised to be durable is.
// qemu-nbd does not hear a second one.
func (s *session) signalLoop(signals <-chan os.Signal) {
	heed(signals, func(first os.Signal) { s.signalled <- first }, func(sig os.Signal) {
		if s.o.door == doorServe && !s.hasten(fmt.Sprintf("second signal (%v)", sig)) {
			s.abandon(secondSignal(sig))
		}
	})
}

// heed calls stop with the first signal and hurry with each later one that is not the same again.
func heed(signals <-chan os.Signal, stop, hurry func(os.Signal)) {
	first := <-signals
	seen := signalSeen{first, time.Now()}
	stop(first)
	for sig := range signals {
		if !seen.again(sig) {
			hurry(sig)
		}
	}
}

func secondSignal(sig os.Signal) string {
	return fmt.Sprintf("second signal (%v): stopped without waiting", sig)
}

// wait returns when there is a reason to stop: a signal, the last client, the end of --run's command, or trouble. With --run
// the command is waited for in any case, since its status is ours; a signal tells it to terminate.
func (s *session) wait() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var finished chan error // nil = there is no command
	if s.o.run != "" {
		finished = make(chan error, 1)
		go func() { finished <- s.runChild(ctx, s.o.run) }()
	}
	var trouble error
	for {
		select {
		case sig := <-s.signalled:
			s.journal.hurry()
			s.journal.log.Info().Str("signal", sig.String()).Msg("stopping")
			cancel()
		case end := <-s.ended:
			trouble = end.err
			s.journal.hurry()
			s.journal.log.Info().AnErr("error", trouble).Msg("stopping: " + end.why)
		case err := <-finished:
			return firstOf(trouble, err)
		}
		if finished == nil {
			return trouble
		}
	}
}
