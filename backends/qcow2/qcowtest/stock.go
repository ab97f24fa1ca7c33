package qcowtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Ran is how a stock tool ended.
type Ran struct {
	Status         int
	Stdout, Stderr string
}

// patience is how long a tool may take; some wait for ever for what damage keeps from happening.
const patience = 60 * time.Second

// Stock runs one of QEMU's tools in a directory. The tools' own failures are answers and not failures of the test.
func Stock(t testing.TB, dir, tool string, args ...string) Ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	// Dates in the output are those of the machine unless a zone is given.
	cmd.Env = append(cmd.Environ(), "TZ=UTC")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		t.Fatalf("%s %q did not end within %v", tool, args, patience)
	}
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Must is Stock for a call that has to succeed.
func Must(t testing.TB, dir, tool string, args ...string) string {
	t.Helper()
	ran := Stock(t, dir, tool, args...)
	if ran.Status != 0 {
		t.Fatalf("%s %q: status %d\n%s%s", tool, args, ran.Status, ran.Stdout, ran.Stderr)
	}
	return ran.Stdout
}

// CheckResult is what qemu-img check --output=json says.
type CheckResult struct {
	ImageEndOffset     int64 `json:"image-end-offset"`
	TotalClusters      int64 `json:"total-clusters"`
	CheckErrors        int64 `json:"check-errors"`
	Corruptions        int64 `json:"corruptions"`
	Leaks              int64 `json:"leaks"`
	CorruptionsFixed   int64 `json:"corruptions-fixed"`
	LeaksFixed         int64 `json:"leaks-fixed"`
	AllocatedClusters  int64 `json:"allocated-clusters"`
	FragmentedClusters int64 `json:"fragmented-clusters"`
	CompressedClusters int64 `json:"compressed-clusters"`
}

// Check is QEMU's verdict on an image: its figures, its exit status, and what it printed. There are no figures when it
// could not check at all. repair is "", "leaks" or "all".
func Check(t testing.TB, path, repair string) (CheckResult, Ran) {
	t.Helper()
	args := []string{"check", "-f", "qcow2", "--output=json"}
	if repair != "" {
		args = append(args, "-r", repair)
	}
	ran := Stock(t, filepath.Dir(path), "qemu-img", append(args, path)...)
	var result CheckResult
	if ran.Stdout != "" {
		// What was repaired is said first, in words.
		text := ran.Stdout[max(0, bytes.IndexByte([]byte(ran.Stdout), '{')):]
		_ = json.Unmarshal([]byte(text), &result)
	}
	return result, ran
}

// MustBeClean fails the test unless QEMU finds nothing wrong with the image. Leaks may be allowed.
func MustBeClean(t testing.TB, path string, leaksAllowed bool) CheckResult {
	t.Helper()
	result, ran := Check(t, path, "")
	const onlyLeaks = 3
	if ran.Status != 0 && !(leaksAllowed && ran.Status == onlyLeaks) {
		t.Fatalf("qemu-img check %s: status %d\n%s%s", path, ran.Status, ran.Stdout, ran.Stderr)
	}
	return result
}

// MustEqual fails the test unless qemu-img reads the same from two images.
func MustEqual(t testing.TB, path, format, otherPath, otherFormat string) {
	t.Helper()
	ran := Stock(t, filepath.Dir(path), "qemu-img", "compare", "-f", format, "-F", otherFormat, path, otherPath)
	if ran.Status != 0 {
		t.Fatalf("qemu-img compare %s %s: status %d\n%s%s", path, otherPath, ran.Status, ran.Stdout, ran.Stderr)
	}
}
