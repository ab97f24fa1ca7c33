//go:build check

package blockcore

import (
	"runtime"
	"testing"
	"time"
)

// Goal: a loop that has nothing to do sleeps in the end, though the kernel says that there is work.
// Method: it looks for work and has said of its ring, falsely, that work is due; until it is seen to sleep.
func TestStuckRing(t *testing.T) {
	c := newTestContext(t, ContextOptions{Engine: EngineURing, PollMax: time.Second})
	e, ok := c.engine.(*uringEngine)
	if !ok {
		return // the host has none
	}
	for range 100 {
		onLoop(t, c, func() {
			c.polling.current = 10 * time.Millisecond // look, even if nothing was worth it until now
			e.ring.RaiseTaskRun()
		})
		for begin := time.Now(); !c.sleeping.Load(); runtime.Gosched() {
			if time.Since(begin) > time.Minute {
				t.Fatal("the loop does not sleep")
			}
		}
	}
}
