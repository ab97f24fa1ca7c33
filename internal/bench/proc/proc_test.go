package proc

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestParseStat checks the fields that are read, with a program name made to mislead.
func TestParseStat(t *testing.T) {
	const fields = " S 1 2 3 4 5 6 7 8 9 10 150 50 7 3 20 0 1"
	for _, name := range []string{"(cat)", "(a) b (c)", "(x 1 2 3 4 5 6)"} {
		s, err := parseStat("42 " + name + fields)
		require.NoError(t, err)
		require.Equal(t, stat{own: 2 * time.Second, reaped: 100 * time.Millisecond}, s)
	}
	for _, bad := range []string{"", "42 (cat) S 1", "42 (cat) S 1 2 3 4 5 6 7 8 9 10 x 50 7 3 20"} {
		_, err := parseStat(bad)
		require.Error(t, err)
	}
}

// TestClockAgrees checks that the CPU clock and /proc/PID/stat tell the same of this
// very process, after it has worked for a while, to within the ticks of the latter.
func TestClockAgrees(t *testing.T) {
	begin, err := clock(os.Getpid())
	require.NoError(t, err)
	now := begin
	for x := uint64(1); now < begin+200*time.Millisecond; x++ {
		if x%1_000_000 == 0 {
			now, err = clock(os.Getpid())
			require.NoError(t, err)
		}
	}
	s, err := readStat(os.Getpid())
	require.NoError(t, err)
	after, err := clock(os.Getpid())
	require.NoError(t, err)
	require.GreaterOrEqual(t, s.own, now-2*tick)
	require.LessOrEqual(t, s.own, after+2*tick)
}

// shell runs a script and returns once it has printed a line.
func shell(t *testing.T, script string) int {
	cmd := exec.Command("sh", "-c", script)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
	})
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return cmd.Process.Pid
}

const burn = `i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done;`

// TestCPUOfTree checks that the time of a living child and of one that has ended both
// count, with a shell that does nothing but start children which burn some. A shell gives
// its children in the background /dev/null to read, so the living one gets our pipe under
// another number: otherwise it ends at once and the shell with it.
func TestCPUOfTree(t *testing.T) {
	for _, c := range []struct{ name, script string }{
		{"living", `exec 3<&0; (` + burn + ` echo; cat <&3 >/dev/null; :) & exec 1>&-; wait`},
		{"ended", `(` + burn + `); echo; read x; :`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid := shell(t, c.script)
			cpu, err := CPU(pid)
			require.NoError(t, err)
			own, err := clock(pid)
			require.NoError(t, err)
			require.Greater(t, cpu, own)
			rss, err := RSS(pid)
			require.NoError(t, err)
			require.Positive(t, rss)
		})
	}
	_, err := CPU(1 << 22)
	require.Error(t, err)
}

// TestSyscallCounter checks the count by making a known number of calls from a thread
// that existed before the counter, where the kernel lets us count at all.
func TestSyscallCounter(t *testing.T) {
	c, err := CountSyscalls(os.Getpid())
	if err != nil {
		require.ErrorAs(t, err, new(unix.Errno), "anything but a lack of rights or of the tracepoint")
		return
	}
	defer c.Close()
	before, err := c.Count()
	require.NoError(t, err)
	const calls = 10_000
	for range calls {
		unix.Getppid()
	}
	after, err := c.Count()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after-before, int64(calls))
	require.Less(t, after-before, int64(2*calls))
}

// TestParseBusy checks which fields of /proc/stat count as work.
func TestParseBusy(t *testing.T) {
	busy, err := parseBusy("cpu  100 10 40 9000 500 20 20 10 70 7\ncpu0 1 2\n")
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, busy)
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"} {
		_, err := parseBusy(bad)
		require.Error(t, err)
	}
	_, err = Busy()
	require.NoError(t, err)
}
