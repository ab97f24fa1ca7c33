package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Busy returns the processor time that the whole machine has spent on anything, what its
// host took away from it (steal) included. Less what the parties to a measurement used
// it is how much others disturbed them.
func Busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("reading the machine's CPU time: %w", err)
	}
	return parseBusy(string(text))
}

// parseBusy adds the fields of the first line of proc_stat(5) but the fourth and fifth
// (idle, waiting for a disk); those from the ninth on are guests, counted as user time.
func parseBusy(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("malformed /proc/stat: %q", line)
	}
	var ticks int64
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("malformed /proc/stat: %w", err)
		}
		if i != 3 && i != 4 {
			ticks += n
		}
	}
	return time.Duration(ticks) * tick, nil
}
