package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Tree returns pid and all its living descendants.
func Tree(pid int) ([]int, error) {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		children, err := children(pids[i])
		if err != nil && i == 0 {
			return nil, err
		}
		pids = append(pids, children...) // a descendant that has just gone has none
	}
	return pids, nil
}

// children lists the processes that a thread of pid started.
func children(pid int) ([]int, error) {
	tids, err := Threads(pid)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, tid := range tids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		if err != nil {
			continue // the thread has just gone
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("reading children of %d: %w", pid, err)
			}
			pids = append(pids, child)
		}
	}
	return pids, nil
}

// Threads lists the threads of pid, the kernel's io_uring workers among them.
func Threads(pid int) ([]int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("listing threads: %w", err)
	}
	tids := make([]int, 0, len(entries))
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("listing threads of %d: %w", pid, err)
		}
		tids = append(tids, tid)
	}
	return tids, nil
}
