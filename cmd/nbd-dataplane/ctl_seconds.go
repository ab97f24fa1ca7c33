package main

import (
	"fmt"
	"strconv"
	"time"
)

// longest is the server's bound on one lease, and on whatever else is asked for in seconds.
const longest = time.Hour

// secondsValue is a flag that is a time, or a number of seconds; 0 = not given.
type secondsValue struct {
	// Immutable.
	flag string

	// Set by the command line before anything runs.
	d time.Duration
}

// Set implements pflag.Value.
func (s *secondsValue) Set(text string) error {
	d, err := time.ParseDuration(text)
	if seconds, notNumber := strconv.ParseUint(text, 10, 16); notNumber == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < time.Second || d > longest || d%time.Second != 0 {
		return fmt.Errorf("--%s %s: use whole seconds from 1s to 1h, such as 30s or 5m", s.flag, text)
	}
	s.d = d
	return nil
}

// Type implements pflag.Value.
func (s *secondsValue) Type() string { return "TIME" }

func (s *secondsValue) String() string {
	if s.d == 0 {
		return ""
	}
	return s.d.String()
}

func (s *secondsValue) seconds() int64 { return int64(s.d / time.Second) }
