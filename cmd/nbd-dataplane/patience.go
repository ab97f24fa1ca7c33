package main

import (
	"io"
	"sync"
	"time"
)

// wordMax is how long a process that is stopping waits for somebody to take a line of its standard error: what holds up
// the stop may be just the reader of the log.
const wordMax = time.Second

// patientWriter is a writer that waits for its reader as long as the server runs, and for wordMax once hurry was called.
// What is not taken in that time is lost, and so is what comes after it until the reader goes on.
type patientWriter struct {
	// Immutable.
	to      io.Writer
	lines   chan []byte
	written chan error // one for each of lines

	// Safe from anywhere.
	hurried  chan struct{} // closed by hurry
	hurrying sync.Once

	// Guarded by mu.
	mu    sync.Mutex
	owing bool // writeLoop has a line that nobody waits for any more
}

func newPatientWriter(to io.Writer) *patientWriter {
	w := &patientWriter{to: to, lines: make(chan []byte, 1), written: make(chan error, 1), hurried: make(chan struct{})}
	go w.writeLoop()
	return w
}

// hurry ends the patience, also of who waits already.
func (w *patientWriter) hurry() { w.hurrying.Do(func() { close(w.hurried) }) }

// writeLoop writes line after line. It ends with the process.
func (w *patientWriter) writeLoop() {
	for line := range w.lines {
		_, err := w.to.Write(line)
		w.written <- err
	}
}

// Write implements io.Writer. A line that is lost is no error.
func (w *patientWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owing {
		select {
		case <-w.written:
			w.owing = false
		default:
			return len(p), nil
		}
	}
	w.lines <- append([]byte(nil), p...)
	select {
	case err := <-w.written:
		return len(p), err
	case <-w.hurried:
	}
	select {
	case err := <-w.written:
		return len(p), err
	case <-time.After(wordMax):
		w.owing = true
		return len(p), nil
	}
}
