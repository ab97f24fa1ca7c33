package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/bench/server"
)

// machine is where the figures come from; without it they mean nothing.
type machine struct {
	Time     string            `json:"time"`
	Kernel   string            `json:"kernel"`
	CPU      string            `json:"cpu"`
	CPUs     int               `json:"cpus"`
	Go       string            `json:"go"`
	Versions map[string]string `json:"versions"`
}

func describe(kinds []server.Kind) machine {
	m := machine{
		Time:     time.Now().UTC().Format(time.RFC3339),
		Kernel:   kernel(),
		CPU:      cpuModel(),
		CPUs:     runtime.NumCPU(),
		Go:       runtime.Version(),
		Versions: map[string]string{},
	}
	for _, k := range kinds {
		if len(k.Version) > 0 {
			m.Versions[k.Name] = firstLine(k.Version)
		}
	}
	return m
}

func (m machine) print(w io.Writer) {
	fmt.Fprintf(w, "%s  Linux %s  %d x %s  %s\n", m.Time, m.Kernel, m.CPUs, m.CPU, m.Go)
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		fmt.Fprintln(w, m.Versions[name])
	}
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func firstLine(argv []string) string {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if line, _, _ := strings.Cut(string(out), "\n"); line != "" {
		return line
	}
	return fmt.Sprintf("%s: %v", argv[0], err)
}

// compile builds one of the module's programs.
func compile(ctx context.Context, output, pkg string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", output, pkg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building %s: %w: %s", pkg, err, strings.TrimSpace(string(out)))
	}
	return output, nil
}
