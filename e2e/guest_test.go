//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	guestMax  = 4 * time.Minute // one boot with all its work; it takes some 20 s on two idle cores
	memoryMiB = 512
)

// guest is what a virtual machine is booted from.
type guest struct {
	// Immutable.
	kernel, initrd string
}

// newGuest packs the root file system, with the programs given, and finds the unpacked kernel.
func newGuest(root, dir string, programs ...string) (guest, error) {
	initrd := filepath.Join(dir, "initrd.gz")
	cmd := exec.Command(filepath.Join(root, "scripts", "mkinitramfs"), append([]string{initrd}, programs...)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return guest{}, fmt.Errorf("packing the guest: %w\n%s", err, text)
	}
	kernels, err := filepath.Glob(filepath.Join(root, ".cache/guest/kernel/boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return guest{}, fmt.Errorf("finding the guest's kernel: %d found, %v (run scripts/install-deps)", len(kernels), err)
	}
	return guest{kernel: kernels[0], initrd: initrd}, nil
}

// run boots the guest into one of its scripts and returns the console's lines. The script's verdict is on the console:
// "E2E PASS name", or "E2E FAIL name" behind the lines that say why.
func (g guest) run(t *testing.T, script string, facts map[string]string, devices ...string) []string {
	t.Helper()
	return g.converse(t, script, facts, func(string) {}, devices...)
}

// converse is run with a host that acts: where the guest says "E2E READY what", and goes on when it sees that it was done.
func (g guest) converse(t *testing.T, script string, facts map[string]string, act func(what string), devices ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guestMax)
	defer cancel()
	cmd, console := g.start(ctx, t, script, facts, devices)
	lines := readConsole(t, console, func(line string) {
		if what, ok := strings.CutPrefix(line, "E2E READY "); ok {
			act(what)
		}
	})
	if err := cmd.Wait(); err != nil {
		t.Errorf("the guest's QEMU ended with: %v (%v)", err, context.Cause(ctx))
	}
	if !contains(lines, "E2E PASS "+script) {
		t.Fatalf("no 'E2E PASS %s' on the console; its last lines:\n%s", script, strings.Join(tail(lines, 60), "\n"))
	}
	return lines
}

// cut boots the guest into one of its scripts and kills it, as a power cut does, some time after a line of the console for
// which ready is true. It returns all lines that came.
func (g guest) cut(t *testing.T, script string, facts map[string]string, delay time.Duration, ready func(string) bool, devices ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guestMax)
	defer cancel()
	cmd, console := g.start(ctx, t, script, facts, devices)
	killed := false
	lines := readConsole(t, console, func(line string) {
		if !killed && ready(line) {
			killed = true
			time.AfterFunc(delay, func() { cmd.Process.Kill() })
		}
	})
	if err := cmd.Wait(); err == nil || !killed || ctx.Err() != nil {
		t.Fatalf("the guest was to run until it was killed; %v; its last lines:\n%s", err, strings.Join(tail(lines, 60), "\n"))
	}
	return lines
}

// start boots the guest and returns its process and its console.
func (g guest) start(ctx context.Context, t *testing.T, script string, facts map[string]string, devices []string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(g.machine(script, facts), devices...)...)
	cmd.Stderr = os.Stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("opening the console: %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the guest: %v", err)
	}
	return cmd, console
}

func (g guest) machine(script string, facts map[string]string) []string {
	line := "console=ttyS0 quiet panic=-1 e2e.run=" + script
	for key, value := range facts {
		line += fmt.Sprintf(" e2e.%s=%s", key, value)
	}
	return []string{
		"-accel", "tcg", "-m", fmt.Sprint(memoryMiB), "-smp", "2",
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none", "-monitor", "none", "-serial", "stdio",
		"-kernel", g.kernel, "-initrd", g.initrd, "-append", line,
	}
}

// readConsole shows the guest's own lines as they come, so that a slow run can be watched with go test -v.
// Each line is given to seen as well.
func readConsole(t *testing.T, console io.Reader, seen func(line string)) []string {
	var lines []string
	scanner := bufio.NewScanner(console)
	for scanner.Scan() {
		text := cleanLine(scanner.Text())
		lines = append(lines, text)
		if strings.HasPrefix(text, "E2E ") {
			t.Log(text)
		}
		seen(text)
	}
	return lines
}

// The firmware and the console's driver write control sequences among the lines.
var controlSequence = regexp.MustCompile(`\x1b\[[0-9;?=]*[A-Za-z]|\x1bc|\r`)

func cleanLine(line string) string { return controlSequence.ReplaceAllString(line, "") }

func contains(lines []string, want string) bool {
	for _, line := range lines {
		if line == want {
			return true
		}
	}
	return false
}

func tail(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }
