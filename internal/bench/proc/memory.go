package proc

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// RSS returns the resident memory of the tree of processes under pid, in bytes. Pages
// shared between them count once for each.
func RSS(pid int) (int64, error) {
	pids, err := Tree(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for i, p := range pids {
		n, err := rss(p)
		if err != nil && i == 0 {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func rss(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("reading memory: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			_, err := fmt.Sscanf(value, "%d kB", &kib)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("reading memory: process %d has none", pid)
}
