package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/nbd"
)

// loggerOf returns the log; qemu-nbd has none.
func loggerOf(o *options, to io.Writer) zerolog.Logger {
	if o.door == doorQEMU {
		return zerolog.Nop()
	}
	return newLogger(o, to)
}

// newLogger returns the log of our own door. It is made once, before anything that logs is started.
func newLogger(o *options, to io.Writer) zerolog.Logger {
	level := map[string]zerolog.Level{
		"debug": zerolog.DebugLevel, "info": zerolog.InfoLevel, "warn": zerolog.WarnLevel, "error": zerolog.ErrorLevel,
		"off": zerolog.Disabled,
	}[o.logLevel]
	if o.verbose && !o.given["log-level"] {
		level = zerolog.DebugLevel
	}
	if o.logFormat == "text" || o.logFormat == "" && isTerminal(to) {
		to = zerolog.ConsoleWriter{Out: to, NoColor: !isTerminal(to), TimeFormat: time.TimeOnly}
	}
	return zerolog.New(to).Level(level).With().Timestamp().Logger()
}

func isTerminal(w io.Writer) bool {
	if p, ok := w.(*patientWriter); ok {
		w = p.to
	}
	if p, ok := w.(*toldWriter); ok {
		w = p.to
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// journal tells people what happens: our own door in a structured log, qemu-nbd in the few lines of QEMU's.
type journal struct {
	// Immutable.
	door   door
	log    zerolog.Logger
	err    io.Writer
	events *eventQueue // what is said on a loop goes through it; nil = everything is written at once
}

// hurry is called when the end begins: from now on nobody waits long for the reader of what is said.
func (j *journal) hurry() {
	if w, ok := j.err.(*patientWriter); ok {
		w.hurry()
	}
}

// warn says something that deserves attention and stops nothing.
func (j *journal) warn(text string) {
	switch j.door {
	case doorQEMU:
		fmt.Fprintf(j.err, "%s: warning: %s\n", qemuName, text)
		return
	case doorQSD:
		fmt.Fprintf(j.err, "%s: warning: %s\n", qsdName, text)
		return
	}
	j.log.Warn().Msg(text)
}

// about returns who is told what is wrong with an image. QEMU prints that as it is, without the program's name.
func (j *journal) about(path string) func(text string) {
	return func(text string) {
		if j.door == doorQEMU || j.door == doorQSD {
			fmt.Fprintln(j.err, text)
			return
		}
		j.log.Warn().Str("image", path).Msg(text)
	}
}

// imageWarning is something wrong with an image that was found while it is used.
type imageWarning struct{ path, text string }

// aboutLater is about for who must not wait for the reader of our standard error: a loop.
func (j *journal) aboutLater(path string) func(text string) {
	if j.events == nil {
		return j.about(path)
	}
	return func(text string) { j.events.put(imageWarning{path, text}) }
}

// repaired tells what was put right in an image that had not been closed. QEMU says no such thing.
func (j *journal) repaired(path string, errors, leaks int64) {
	j.log.Warn().Str("image", path).Int64("errors", errors).Int64("leaked_clusters", leaks).Msg("image had not been closed, and was repaired")
}

// warnOf is warn about an option, which was given in these words.
func (j *journal) warnOf(words, text string) {
	if j.door == doorQSD {
		fmt.Fprintf(j.err, "%s: %s: warning: %s\n", qsdName, words, text)
		return
	}
	j.warn(words + ": " + strings.ReplaceAll(text, "\n", ". "))
}

// waits tells that nothing happens until somebody connects to a chardev.
func (j *journal) waits(c *chardev) {
	if j.door == doorQSD {
		fmt.Fprintf(j.err, "%s: %s: info: QEMU waiting for connection on: disconnected:%s,server=on\n", qsdName, c.words, c.place.chardevName())
		return
	}
	j.log.Info().Str("at", c.place.chardevName()).Msg("waiting for a monitor to connect")
}

// record writes an event of the server or of the graph down. It is called by one goroutine.
func (j *journal) record(e any) {
	switch e := e.(type) {
	case nbd.Event:
		j.serverEvent(e)
	case blockcore.Event:
		j.graphEvent(e)
	case control.StorageHealth:
		j.storageEvent(e)
	case imageWarning:
		j.about(e.path)(e.text)
	}
}

func (j *journal) serverEvent(e nbd.Event) {
	if j.door == doorQEMU {
		j.qemuEvent(e)
		return
	}
	switch e := e.(type) {
	case nbd.ConnectionAccepted:
		j.log.Debug().Stringer("peer", e.Peer).Msg("client connected")
	case nbd.ConnectionOpened:
		j.log.Info().Stringer("peer", e.Peer).Str("export", e.Export).Uint64("id", e.ID).Msg("export opened")
	case nbd.ConnectionClosed:
		j.log.Info().Stringer("peer", e.Peer).Str("export", e.Export).Uint64("id", e.ID).Stringer("cause", e.Cause).AnErr("error", e.Err).
			Uint64("requests", e.Requests).Uint64("failed", e.Failed).Uint64("read", e.Read).Uint64("written", e.Written).
			Dur("duration", e.Duration).Msg("export closed")
	case nbd.NegotiationFailed:
		j.negotiationFailed(e)
	case nbd.AccessDenied:
		j.log.Warn().Stringer("peer", e.Peer).Str("export", e.Export).Err(e.Err).Msg("client was refused an export")
	case nbd.RequestFailed:
		j.log.Error().Str("export", e.Export).Uint64("id", e.ID).Stringer("command", e.Command).Uint64("offset", e.Offset).
			Uint64("length", e.Length).Err(e.Err).Msg("request failed")
	case nbd.ClientsHeld:
		j.log.Info().Str("export", e.Export).Int("clients", e.Clients).Dur("limit", e.Most).Msg("clients wait for another export of the name")
	case nbd.ClientsReleased:
		j.log.Info().Str("export", e.Export).Int("clients", e.Clients).Dur("held", e.Held).Stringer("outcome", e.Outcome).Msg("wait of clients is over")
	case nbd.PauseRefused:
		j.log.Warn().Str("export", e.Export).Err(e.Err).Msg("clients cannot be held, their connections are closed")
	case nbd.AcceptFailed:
		j.log.Error().Err(e.Err).Msg("accepting clients failed, will be tried again")
	}
}

// graphEvent writes an event of the graph down. qemu-nbd has no such.
func (j *journal) graphEvent(e blockcore.Event) {
	switch e := e.(type) {
	case blockcore.DrainSettled:
		j.log.Debug().Str("why", e.Why).Dur("throttle", e.Timings.Throttle).Dur("unplug", e.Timings.Unplug).Dur("quiesce", e.Timings.Quiesce).
			Dur("settle", e.Timings.Settle).Msg("drained")
	case blockcore.DrainEnded:
		j.log.Debug().Str("why", e.Why).Dur("held", e.Timings.Held).Dur("resume", e.Timings.Resume).Msg("resumed")
	case blockcore.DrainFailed:
		j.log.Warn().Str("why", e.Why).Err(e.Err).Msg("drain gave up")
	case blockcore.GraphUnchanged:
		if what := control.RefusedByDisk(e.Err); what != nil {
			j.log.Error().Str("why", e.Why).Err(what).Msg("the disk refused what was needed for a change")
		}
	case blockcore.GraphChanged:
		j.log.Debug().Str("why", e.Why).Msg("graph changed")
	}
}

// storageEvent writes down that a server below has gone, or come back.
func (j *journal) storageEvent(e control.StorageHealth) {
	switch {
	case j.door == doorQEMU || j.door == doorQSD:
		fmt.Fprintf(j.err, "%s\n", e)
	case e.OK:
		j.log.Info().Str("node", e.Node).Str("file", e.File).Dur("lasted", e.Lasted).Msg("storage answers again")
	case e.Refuses:
		j.log.Error().Str("node", e.Node).Str("file", e.File).Str("why", e.Why).Msg("storage is not written to any more")
	default:
		j.log.Warn().Str("node", e.Node).Str("file", e.File).Str("why", e.Why).Msg("storage does not answer, requests wait")
	}
}

// negotiationFailed: a client that looked around and left is no news.
func (j *journal) negotiationFailed(e nbd.NegotiationFailed) {
	level := zerolog.WarnLevel
	if hasLeft(e.Err) {
		level = zerolog.DebugLevel
	}
	event := j.log.WithLevel(level)
	if e.Peer != nil {
		event = event.Stringer("peer", e.Peer)
	}
	event.Err(e.Err).Msg("client did not open an export")
}

// hasLeft says that nothing went wrong: the client left, which is its right, or the server is going.
func hasLeft(err error) bool {
	return errors.Is(err, nbd.ErrClientLeft) || errors.Is(err, nbd.ErrAborted) || errors.Is(err, nbd.ErrCancelled)
}

// qemuEvent: of what clients do, qemu-nbd only says when one broke the negotiation.
func (j *journal) qemuEvent(e nbd.Event) {
	if failed, ok := e.(nbd.NegotiationFailed); ok && !hasLeft(failed.Err) {
		fmt.Fprintf(j.err, "%s: option negotiation failed: %v\n", qemuName, failed.Err)
	}
}
