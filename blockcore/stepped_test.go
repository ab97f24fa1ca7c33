package blockcore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// drive has the loops go on, each as long as it can, the last first, until fn has returned. It is called in a bubble.
func drive(t *testing.T, fn func() error, loops ...*Stepped) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	for range 1000 {
		synctest.Wait()
		for i := len(loops) - 1; i >= 0; i-- {
			for steps := 0; loops[i].Runnable() && steps < 100; steps++ {
				loops[i].Step()
				synctest.Wait()
			}
		}
		select {
		case err := <-done:
			require.NoError(t, err)
			return
		default:
		}
	}
	t.Fatal("the loops do nothing any more, and the control plane has not come to its end")
}

// closeStepped ends loops that have nothing left to do.
func closeStepped(t *testing.T, loops ...*Stepped) {
	for _, l := range loops {
		drive(t, func() error { l.Close(); return nil }, l)
	}
}

func TestSteppedDoesOneThingAtATime(t *testing.T) {
	// A Stepped does at most one thing a step, and says whether there is more to do and when: a Task that yields and one that sleeps.
	synctest.Test(t, func(t *testing.T) {
		l := NewStepped("loop", nil)
		var order []string
		note := func(what string) { order = append(order, what) }
		spawn := func(body func(t *Task)) { l.Post(func() { l.Spawn(BodyFunc(body)) }) }
		spawn(func(t *Task) { note("a"); t.Yield(); note("b") })
		spawn(func(t *Task) { note("c"); t.Sleep(time.Second); note("d") })
		steps := func() {
			for l.Runnable() {
				before := len(order)
				l.Step()
				require.LessOrEqual(t, len(order), before+1)
			}
		}
		steps()
		require.Equal(t, []string{"a", "c", "b"}, order)
		wait, ok := l.Timer()
		require.True(t, ok)
		require.Equal(t, time.Second, wait)
		order = nil
		<-time.After(wait)
		steps()
		require.Equal(t, []string{"d"}, order)
		closeStepped(t, l)
	})
}
