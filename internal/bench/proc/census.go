package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Census is what processes had used of the processors at one moment, by their numbers, and what the machine's host had taken away.
type Census struct {
	// Immutable.
	used  map[int]time.Duration
	steal time.Duration
}

// Others takes a census of all processes but some, with threads of the kernel or without.
func Others(kernel bool, but ...int) (Census, error) {
	c := Census{used: map[int]time.Duration{}}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c, fmt.Errorf("reading the machine's CPU time: %w", err)
	}
	if c.steal, err = parseSteal(string(text)); err != nil {
		return c, err
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return c, fmt.Errorf("listing processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return c, fmt.Errorf("listing processes: %w", err)
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && (kernel || !ofKernel(pid)) {
			if used, err := clock(pid); err == nil { // or it has ended
				c.used[pid] = used
			}
		}
	}
	for _, pid := range but {
		delete(c.used, pid)
	}
	return c, nil
}

// ofKernel tells threads of the kernel by their command line, which is empty (proc_pid_cmdline(5)).
func ofKernel(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(line) == 0
}

// Since is what they have used since an earlier census, and what the host has taken. Who has ended meanwhile is not counted.
func (c Census) Since(before Census) time.Duration {
	sum := c.steal - before.steal
	for pid, used := range c.used {
		sum += max(used-before.used[pid], 0)
	}
	return sum
}

// parseSteal reads the eighth number of the first line of proc_stat(5).
func parseSteal(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("malformed /proc/stat: %q", line)
	}
	n, err := strconv.ParseInt(fields[8], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("malformed /proc/stat: %w", err)
	}
	return time.Duration(n) * tick, nil
}
