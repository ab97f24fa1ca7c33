package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tick = time.Second / 100 // USER_HZ, the unit of /proc/PID/stat on every architecture we run on

	clockProcessSched = 2 // CPUCLOCK_SCHED of the kernel: user and system time, in nanoseconds
)

// CPU returns the user and system time that the tree of processes under pid has used,
// with the children that have ended and were waited for.
//
// The time of a living process is read from its CPU clock: the same sum over its
// threads, dead ones and io_uring workers included, that /proc/PID/stat shows in ticks
// of 10 ms, but in nanoseconds. Work the kernel does in threads of its own (writeback,
// soft interrupts) is charged to nobody here.
func CPU(pid int) (time.Duration, error) {
	pids, err := Tree(pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for i, p := range pids {
		own, err := clock(p)
		if err != nil && i == 0 {
			return 0, err
		}
		s, err := readStat(p)
		if err != nil && i == 0 {
			return 0, err
		}
		sum += own + s.reaped
	}
	return sum, nil
}

// clock reads the CPU clock of a process. clock_getcpuclockid(3) makes its number so.
func clock(pid int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|clockProcessSched), &ts); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// stat is what we take from /proc/PID/stat.
type stat struct {
	own    time.Duration // utime + stime
	reaped time.Duration // cutime + cstime
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("reading CPU time: %w", err)
	}
	return parseStat(string(text))
}

// parseStat reads fields 14 to 17 of proc_pid_stat(5). The second is the program's name,
// which may hold anything but ends at the last parenthesis.
func parseStat(text string) (stat, error) {
	_, rest, ok := cutLast(text, ')')
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return stat{}, fmt.Errorf("malformed /proc/PID/stat: %q", text)
	}
	var ticks [4]int64
	for i := range ticks {
		n, err := strconv.ParseInt(fields[11+i], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("malformed /proc/PID/stat: %w", err)
		}
		ticks[i] = n
	}
	return stat{
		own:    time.Duration(ticks[0]+ticks[1]) * tick,
		reaped: time.Duration(ticks[2]+ticks[3]) * tick,
	}, nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
