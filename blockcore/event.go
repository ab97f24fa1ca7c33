package blockcore

// Event is something that happened in a graph. Events are the one source of logs, of what monitors are told and of tests'
// transcripts. They are delivered by the goroutine where they happen, never by a loop: who receives them must not block.
type Event interface{ isGraphEvent() }

// DrainSettled: a drained section has begun; what it covers has nothing in flight.
type DrainSettled struct {
	Why     string
	Timings Timings
}

// DrainEnded: a drained section has ended.
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

func (DrainSettled) isGraphEvent()   {}
func (DrainEnded) isGraphEvent()     {}
func (DrainFailed) isGraphEvent()    {}
func (GraphChanged) isGraphEvent()   {}
func (GraphUnchanged) isGraphEvent() {}

func (g *Graph) emit(e Event) {
	if g.onEvent != nil {
		g.onEvent(e)
	}
}
