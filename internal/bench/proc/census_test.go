package proc

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: what somebody uses is seen, and who is left out is not. Method: a process that does nothing but use the processor, counted once and left out
// once, until it has used enough.
func TestOthers(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	before, err := Others(true, os.Getpid())
	require.NoError(t, err)
	const enough = 50 * time.Millisecond
	require.Eventually(t, func() bool {
		after, err := Others(true, os.Getpid())
		return err == nil && after.Since(before) > enough
	}, time.Minute, time.Millisecond)
	without, err := Others(true, os.Getpid(), cmd.Process.Pid)
	require.NoError(t, err)
	require.NotContains(t, without.used, cmd.Process.Pid)
	require.NotContains(t, without.used, os.Getpid())
}

// Goal: threads of the kernel are counted or left out, and nobody else is. Method: this process, and kthreadd, if it is seen from here.
func TestKernelsThreads(t *testing.T) {
	all, err := Others(true)
	require.NoError(t, err)
	require.Contains(t, all.used, os.Getpid())
	without, err := Others(false)
	require.NoError(t, err)
	require.Contains(t, without.used, os.Getpid())
	const kthreadd = 2
	if name, err := os.ReadFile("/proc/2/comm"); err == nil && string(name) == "kthreadd\n" {
		require.Contains(t, all.used, kthreadd)
		require.NotContains(t, without.used, kthreadd)
	}
}

// Goal: what the host has taken is read, and nothing is made up. Method: lines as the kernel has them, and others.
func TestSteal(t *testing.T) {
	got, err := parseSteal("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n")
	require.NoError(t, err)
	require.Equal(t, 8*tick, got)
	for _, bad := range []string{"", "cpu 1 2", "cpu 1 2 3 4 5 6 7 x", "cpu0 1 2 3 4 5 6 7 8 9"} {
		_, err := parseSteal(bad)
		require.Error(t, err, bad)
	}
}
