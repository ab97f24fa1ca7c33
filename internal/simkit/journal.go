package simkit

import (
	"fmt"
	"sync"
)

// Result is what came of a run.
type Result struct {
	Failure string // "" = none
	Trace   []string
	Counts  map[string]int
}

// Journal takes down what happens in a run. All of it is safe from anywhere.
type Journal struct {
	// Immutable.
	traced bool

	// Guarded by mu.
	mu     sync.Mutex
	result Result
}

// Fail notes the first thing that is wrong.
func (j *Journal) Fail(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.result.Failure == "" {
		j.result.Failure = fmt.Sprintf(format, args...)
		j.result.Trace = append(j.result.Trace, "FAILURE: "+j.result.Failure)
	}
}

// Failed reports whether something was wrong.
func (j *Journal) Failed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.result.Failure != ""
}

// Count adds one to what has happened.
func (j *Journal) Count(what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.result.Counts[what]++
}

// Result returns all of it.
func (j *Journal) Result() Result {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.result
}

func (j *Journal) trace(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.result.Trace = append(j.result.Trace, line)
}
