package subject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program is an executable that serves a file over NBD.
type Program struct {
	// Immutable.
	path  string
	stock bool // takes qemu-nbd's command line, and is not ours
}

// Build compiles the program into dir, with the build tags and the race detector of the test that calls it, so that a
// checked test drives a checked server. INTEROP_SERVER takes its place without a build.
func Build(dir string) (Program, error) {
	if path := os.Getenv("INTEROP_SERVER"); path != "" {
		found, err := exec.LookPath(path)
		if err != nil {
			return Program{}, fmt.Errorf("finding INTEROP_SERVER: %w", err)
		}
		return Program{path: found, stock: true}, nil
	}
	root, err := Root()
	if err != nil {
		return Program{}, err
	}
	out := filepath.Join(dir, "nbd-dataplane")
	args := append([]string{"build", "-o", out}, buildFlags()...)
	cmd := exec.Command("go", append(args, "./cmd/nbd-dataplane")...)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return Program{}, fmt.Errorf("building the program: %w\n%s", err, text)
	}
	return Program{path: out}, nil
}

func buildFlags() []string {
	var flags, tags []string
	if raceOn {
		flags = append(flags, "-race")
	}
	if checkOn {
		tags = append(tags, "check")
	}
	if len(tags) > 0 {
		flags = append(flags, "-tags="+strings.Join(tags, ","))
	}
	return flags
}

// Root is the directory of go.mod, found upwards from the working directory, which go test sets to the package's.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("finding the module: no go.mod above the working directory")
		}
		dir = up
	}
}

// Stock says that the program is not ours but one with qemu-nbd's command line.
func (p Program) Stock() bool { return p.stock }

// Path is the executable.
func (p Program) Path() string { return p.path }

// Command is the program with args behind what makes it a server.
func (p Program) Command(args ...string) []string {
	if p.stock {
		// qemu-nbd leaves after the last client and serves one at a time unless told otherwise.
		return append([]string{p.path, "-t", "-e", "0"}, args...)
	}
	return append([]string{p.path, "serve"}, args...)
}
