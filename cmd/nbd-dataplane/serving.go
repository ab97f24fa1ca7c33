package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
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
	j := &journal{door: o.door, log: loggerOf(o, c.err), err: c.err}
	s := newSession(o, j)
	signals := takeSignals()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.announce(c.out, child); err != nil {
		return firstOf(err, s.stop())
	}
	err := s.wait(signals)
	go s.abandonLoop(signals)
	return firstOf(err, s.stop())
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

// takeSignals subscribes to the signals that stop the server. A reader of our output that goes away is no reason to die.
func takeSignals() chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	return signals
}

// wait returns when there is a reason to stop: a signal, the last client, the end of --run's command, or trouble.
func (s *session) wait(signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	finished := make(chan error, 1)
	if s.o.run != "" {
		go func() { finished <- s.runChild(ctx, s.o.run) }()
	}
	select {
	case sig := <-signals:
		s.journal.log.Info().Str("signal", sig.String()).Msg("stopping")
		cancel()
		if s.o.run != "" {
			return <-finished
		}
		return nil
	case err := <-s.ended:
		s.journal.log.Info().AnErr("error", err).Msg("stopping: no clients left")
		if s.o.run != "" {
			return firstOf(err, <-finished)
		}
		return err
	case err := <-finished:
		return err
	}
}

// abandonLoop ends the process at a second signal, for people who cannot wait for clients and storage. What was promised to
// be durable is.
func (s *session) abandonLoop(signals <-chan os.Signal) {
	sig := <-signals
	s.journal.warn(fmt.Sprintf("second signal (%v): stopped without waiting", sig))
	for _, p := range s.places {
		p.close()
	}
	os.Exit(1)
}
