package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/nbd"
)

// Goal: a writer that is stuck delays nobody, and what it missed is told; method: block the writer, put more than fits,
// let it go.
func TestEventQueueDoesNotWait(t *testing.T) {
	stuck, entered := make(chan struct{}), make(chan struct{}, 1)
	written, lost := 0, uint64(0)
	q := newEventQueue(func(any) {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-stuck
		written++
	}, func(n uint64) { lost += n })
	q.put(nbd.ClientGone{})
	<-entered
	for range eventsQueued + 5 {
		q.put(nbd.ClientGone{})
	}
	close(stuck)
	q.close()
	<-q.done
	require.Equal(t, 1+eventsQueued, written)
	require.EqualValues(t, 5, lost)
}
