package blocktest

import (
	"fmt"
	"strings"
	"sync"
)

// Log is a list of events in the order in which they happened, one line each. Several Fakes may share one, and tests
// may add lines of their own: the whole is a transcript to compare with a golden one.
// The zero value is empty.
type Log struct {
	// Guarded by mu.
	mu    sync.Mutex
	lines []string
}

// Add appends a line. Safe from anywhere; a nil Log drops it.
func (l *Log) Add(format string, args ...any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// Text returns all lines, each with a newline. Safe from anywhere.
func (l *Log) Text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return joinLines(l.lines)
}

// Take returns Text and empties the log. Safe from anywhere.
func (l *Log) Take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := joinLines(l.lines)
	l.lines = nil
	return text
}

func joinLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
