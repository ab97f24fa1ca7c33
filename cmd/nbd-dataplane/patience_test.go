package main

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: a writer waits for its reader until it is hurried, then for a second, and from then on not at all until the reader goes on. Method: a
// pipe that is read when the test says so, on a clock of the test's own.
func TestPatientWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		w := newPatientWriter(out)
		defer close(w.lines)
		took := func() time.Duration {
			began := time.Now()
			n, err := w.Write([]byte("word\n"))
			require.NoError(t, err)
			require.Equal(t, 5, n)
			return time.Since(began)
		}
		read := func() { _, _ = in.Read(make([]byte, 5)) }
		time.AfterFunc(time.Hour, read)
		require.Equal(t, time.Hour, took(), "patient")
		time.AfterFunc(time.Minute, w.hurry)
		require.Equal(t, time.Minute+wordMax, took(), "hurried while it waited")
		require.Zero(t, took(), "lost without waiting")
		read()
		synctest.Wait()
		time.AfterFunc(time.Millisecond, read)
		require.Equal(t, time.Millisecond, took(), "the reader is back")
		in.Close()
		_, err := w.Write([]byte("word\n"))
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}
