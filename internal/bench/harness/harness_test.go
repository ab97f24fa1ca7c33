package harness

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/bench/dummy"
	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/report"
	"nbd-dataplane/internal/bench/server"
)

const testBytes = 16 << 20

// TestMain lets this program play the server named ceiling, which starts the program it
// is told with the argument dummy.
func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == "dummy" {
		ln, err := net.Listen("unix", os.Args[3])
		if err == nil {
			err = dummy.New(testBytes).Serve(ln)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// options are those of a run on the ceiling that takes as little time as there is.
func options(t *testing.T) Options {
	program, err := os.Executable()
	require.NoError(t, err)
	var kinds []server.Kind
	for _, k := range server.Known() {
		if k.Name == "ceiling" {
			kinds = append(kinds, k)
		}
	}
	require.Len(t, kinds, 1)
	return Options{
		Servers: kinds, Rounds: 1, Duration: 10 * time.Millisecond, Dir: t.TempDir(), FileBytes: testBytes,
		Syscalls: true, Programs: server.Programs{Bench: program}, Progress: io.Discard,
	}
}

// TestRun checks a whole comparison, from starting a server to the table, with the
// ceiling as the only server and a workload that it serves beside one that it does not.
func TestRun(t *testing.T) {
	o := options(t)
	var out strings.Builder
	o.Out = &out
	o.Workloads = append(random(Load, server.Null, 2, []loadgen.Mode{loadgen.Mixed}, 4),
		random(Load, server.Cached, 1, []loadgen.Mode{loadgen.Read}, 1)...)
	all, err := Run(context.Background(), o)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Len(t, all[0].Series, 1)
	require.Len(t, all[0].Series[0].Samples, 1)
	sample := all[0].Series[0].Samples[0]
	require.Positive(t, sample.IOPS)
	require.Positive(t, sample.CPUus)
	require.Positive(t, sample.ClientUs)
	require.Empty(t, all[1].Series)
	require.Contains(t, out.String(), "load/null/4k-randmixed-d4-c2")
	left, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Empty(t, left, "the file must be removed")
}

// TestRunCancelled checks that a run ends with the reason when its context does, and
// leaves nothing behind.
func TestRunCancelled(t *testing.T) {
	o := options(t)
	o.Out = io.Discard
	o.Workloads = random(Load, server.Null, 1, oneWay, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Run(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestIdleAndStartup checks both small benchmarks for figures that are there, on the
// ceiling.
func TestIdleAndStartup(t *testing.T) {
	o := options(t)
	var out strings.Builder
	o.Out = &out
	idle, err := MeasureIdle(context.Background(), o, 20)
	require.NoError(t, err)
	require.Len(t, idle, 1)
	require.Positive(t, idle[0].RSSMiB)
	starts, err := MeasureStartup(context.Background(), o, 2)
	require.NoError(t, err)
	require.Len(t, starts[0].Ms, 2)
	require.Contains(t, out.String(), "20 idle connections")
}

// TestOptions checks that choices which cannot be measured are refused.
func TestOptions(t *testing.T) {
	good := options(t)
	require.NoError(t, good.validate())
	for _, change := range []func(*Options){
		func(o *Options) { o.Rounds = 0 },
		func(o *Options) { o.Duration = 0 },
		func(o *Options) { o.FileBytes = 1 },
		func(o *Options) { o.Servers = nil },
	} {
		o := good
		change(&o)
		require.Error(t, o.validate())
	}
}

// TestImage checks that the file is written from end to end (as many blocks as bytes)
// and survives the preparations for each storage.
func TestImage(t *testing.T) {
	im, err := createImage(filepath.Join(t.TempDir(), "i"), 3<<20+512)
	require.NoError(t, err)
	for _, s := range []server.Storage{server.Cached, server.Direct, server.Null} {
		require.NoError(t, im.prepare(s))
	}
	require.NoError(t, settle(im.path))
	data, err := os.ReadFile(im.path)
	require.NoError(t, err)
	require.Len(t, data, 3<<20+512)
	require.NotZero(t, data[len(data)-1])
	require.NoError(t, im.remove())
	_, err = createImage(filepath.Join(t.TempDir(), "no", "i"), 1<<20)
	require.Error(t, err)
}

// TestMatrix checks the matrices: names that are unique, the quick one a part of the
// full one, every workload with a Spec's worth of numbers.
func TestMatrix(t *testing.T) {
	full := map[string]bool{}
	for _, w := range Matrix() {
		require.False(t, full[w.Name()], w.Name())
		full[w.Name()] = true
		require.Positive(t, w.BlockBytes*w.Depth*w.Conns)
	}
	for _, w := range Quick() {
		require.True(t, full[w.Name()], w.Name())
	}
	require.Len(t, Select(Matrix(), regexp.MustCompile(`^load/cached/4k-.*-d32-c1$`)), 3)
	require.Empty(t, Select(Matrix(), regexp.MustCompile(`^nothing$`)))
}

// TestTarget checks which workloads ask for what.
func TestTarget(t *testing.T) {
	deep := random(Load, server.Cached, 1, oneWay, 32)[0]
	require.Equal(t, report.Target{IOPSRatioMin: 2, CPURatioMax: 0.5, SyscallsMax: 0.5}, deep.Target())
	require.Equal(t, 1.2, random(Load, server.Cached, 1, oneWay, 1)[0].Target().IOPSRatioMin)
	require.Equal(t, 1.3, sequential(Load, server.Cached, 1, 1<<20)[0].Target().IOPSRatioMin)
	require.Equal(t, 1.0, random(Fio, server.Cached, 1, oneWay, 32)[0].Target().IOPSRatioMin)
	require.Zero(t, random(Load, server.Cached, 1, oneWay, 4)[0].Target())
}

// TestPattern checks the spelling for fio of every kind of request.
func TestPattern(t *testing.T) {
	for _, c := range []struct {
		w    Workload
		want string
	}{
		{Workload{Mode: loadgen.Read}, "randread"},
		{Workload{Mode: loadgen.Mixed}, "randrw"},
		{Workload{Mode: loadgen.Write, Sequential: true}, "write"},
		{Workload{Mode: loadgen.Mixed, Sequential: true}, "rw"},
	} {
		require.Equal(t, c.want, c.w.fioPattern())
	}
}

// TestCost checks the arithmetic of a cost per request and of what others used.
func TestCost(t *testing.T) {
	c := cost{server: 2 * time.Second, client: time.Second, all: 3500 * time.Millisecond, elapsed: 2 * time.Second}
	s := c.sample(1_000_000)
	require.Equal(t, 2.0, s.CPUus)
	require.Equal(t, 1.0, s.ClientUs)
	require.Equal(t, 25.0, s.OtherCPU)
	c.all = 0
	require.Zero(t, c.sample(0).OtherCPU)
}
