package blockcore

// Event is something that happened in a graph. Events are the one source of logs, of what monitors are told and of tests'
// transcripts. They are delivered by the goroutine where they happen, which may be a loop: who receives them must not block, nor ask
// the graph or its jobs anything.
type Event interface{ isGraphEvent() }

// DrainSettled: a drained section has begun; what it covers has nothing in flight.
type DrainSettled struct {
	Why     string
	Timings Timings
}

// DrainEnded: a drained section has ended, and what it covered goes on, where no other section covers it.
type DrainEnded struct {
	Why     string
	Timings Timings
}

// DrainFailed: a drain gave up.
type DrainFailed struct {
	Why string
	Err *DrainError
}

// GraphChanged: a change is done, and cannot be undone any more.
type GraphChanged struct{ Why string }

// GraphUnchanged: a change failed, and everything is as it was.
type GraphUnchanged struct {
	Why string
	Err error
}

// JobStatusChanged: a job is in another state.
type JobStatusChanged struct {
	ID     string
	Status JobStatus
}

func (JobStatusChanged) isGraphEvent() {}
func (DrainSettled) isGraphEvent()     {}
func (DrainEnded) isGraphEvent()       {}
func (DrainFailed) isGraphEvent()      {}
func (GraphChanged) isGraphEvent()     {}
func (GraphUnchanged) isGraphEvent()   {}

func (g *Graph) emit(e Event) {
	if g.onEvent != nil {
		g.onEvent(e)
	}
}
