package simkit

import (
	"fmt"
	"runtime/debug"
	"testing/synctest"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/membuf"
)

// Stage is what a world stands on. What stands under no heading belongs to whoever runs, which is one goroutine at a time.
type Stage struct {
	Journal
	threads threads

	// Immutable.
	Loops []*blockcore.Stepped
	Pool  *membuf.Pool
	begun time.Time

	Running *blockcore.Stepped // the loop that does something; nil = none
	Ended   bool
	ticks   int64
	moved   time.Duration // when something came to its end
}

// NewStage returns one without loops. It is called in a bubble of testing/synctest, and so is all else.
func NewStage(traced bool) *Stage {
	return &Stage{Journal: Journal{traced: traced, result: Result{Counts: map[string]int{}}}, Pool: membuf.NewPool(1 << 20), begun: time.Now()}
}

// AddLoops makes n loops.
func (s *Stage) AddLoops(n int) {
	for i := range n {
		s.Loops = append(s.Loops, blockcore.NewStepped(fmt.Sprintf("loop%d", i), s.Pool))
	}
}

// Now is how long the run has lasted.
func (s *Stage) Now() time.Duration { return time.Since(s.begun) }

// Tick is the number of an event: later ones have higher numbers.
func (s *Stage) Tick() int64 {
	s.ticks++
	return s.ticks
}

// Progress notes that something has come to its end.
func (s *Stage) Progress() { s.moved = s.Now() }

// Log adds a line to the trace.
func (s *Stage) Log(format string, args ...any) {
	if !s.traced {
		return
	}
	on := ""
	if s.Running != nil {
		on = s.Running.Name() + " "
	}
	s.trace(fmt.Sprintf("%v #%d %s", s.Now(), s.ticks, on) + fmt.Sprintf(format, args...))
}

// Play has choose decide what happens next until the run is over or something is wrong.
func (s *Stage) Play(choose func()) {
	for {
		synctest.Wait()
		if s.Ended || s.Failed() {
			return
		}
		choose()
	}
}

// Step has a loop do one thing.
func (s *Stage) Step(l *blockcore.Stepped) {
	defer s.Rescue(l.Name())
	s.Running = l
	l.Step()
	s.Running = nil
}

// Rescue, deferred, makes a broken invariant the failure of the run.
func (s *Stage) Rescue(who string) {
	if p := recover(); p != nil {
		s.Fail("%s: panic: %v\n%s", who, p, debug.Stack())
	}
}

// Idle returns how long nothing happens by itself, most at the most: until a timer of a loop ends or a Thread may be chosen.
func (s *Stage) Idle(most time.Duration) time.Duration {
	for _, l := range s.Loops {
		if at, ok := l.Timer(); ok {
			most = min(most, at)
		}
	}
	return max(s.threads.idle(s.Now(), most), 1)
}

// MustMove fails the run when nothing has come to an end for that long.
func (s *Stage) MustMove(most time.Duration, describe func() string) {
	if s.Now()-s.moved > most {
		s.Fail("nothing has come to an end for %v: %s", most, describe())
	}
}

// Close ends the loops, which have nothing left to do.
func (s *Stage) Close() {
	for _, l := range s.Loops {
		s.closeLoop(l)
	}
	if err := s.Pool.Close(); err != nil {
		s.Fail("a buffer was leaked: %v", err)
	}
}

func (s *Stage) closeLoop(l *blockcore.Stepped) {
	closed := make(chan struct{})
	go func() { l.Close(); close(closed) }()
	synctest.Wait()
	for range 1000 {
		if !l.Step() {
			break
		}
	}
	synctest.Wait()
	select {
	case <-closed:
	default:
		s.Fail("%s does not end", l.Name())
	}
}
