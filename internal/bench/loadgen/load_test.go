package loadgen_test

import (
	"net"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/internal/bench/dummy"
	"nbd-dataplane/internal/bench/loadgen"
)

const exportBytes = 8 << 20

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a dummy server for the time of a test and returns its URI.
func serve(t testing.TB, s *dummy.Server) string {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		require.NoError(t, <-done)
	})
	return "nbd+unix:///?socket=" + path
}

// drive opens spec, runs it once and closes it.
func drive(t testing.TB, spec loadgen.Spec, limit loadgen.Limit) (loadgen.Result, error) {
	l, err := loadgen.Open(spec)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Run(limit)
}

// TestCounts checks that a run sends exactly what its Spec says: a table of loads
// against the dummy server, which counts what arrives.
func TestCounts(t *testing.T) {
	for _, c := range []struct {
		name                   string
		spec                   loadgen.Spec
		requests               int64
		reads, writes, flushes int64 // -1: some
	}{
		{"read", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 4096, Depth: 32}, 5000, 5000, 0, 0},
		{"write", loadgen.Spec{Mode: loadgen.Write, BlockBytes: 4096, Depth: 32}, 5000, 0, 5000, 0},
		{"mixed", loadgen.Spec{Mode: loadgen.Mixed, BlockBytes: 4096, Depth: 16}, 5000, -1, -1, 0},
		{"depth 1", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 512, Depth: 1}, 300, 300, 0, 0},
		{"four connections", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 4096, Depth: 8, Conns: 4}, 1003, 1003, 0, 0},
		{"fewer requests than connections", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 4096, Depth: 8, Conns: 4}, 3, 3, 0, 0},
		{"flush", loadgen.Spec{Mode: loadgen.Write, BlockBytes: 4096, Depth: 4, FlushEvery: 9, FUA: true}, 1000, 0, 900, 100},
		{"large reads", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 1 << 20, Depth: 16, Sequential: true}, 100, 100, 0, 0},
		{"large writes", loadgen.Spec{Mode: loadgen.Write, BlockBytes: 1 << 20, Depth: 16, Sequential: true}, 100, 0, 100, 0},
		{"large mixed", loadgen.Spec{Mode: loadgen.Mixed, ReadPercent: 50, BlockBytes: 1 << 20, Depth: 16}, 100, -1, -1, 0},
		{"structured", loadgen.Spec{Mode: loadgen.Mixed, BlockBytes: 4096, Depth: 32, Structured: true}, 3000, -1, -1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen [4]atomic.Int64
			var fua atomic.Int64
			s := dummy.New(exportBytes)
			s.Observe = func(typ, flags uint16) {
				seen[typ].Add(1)
				fua.Add(int64(flags & 1))
			}
			c.spec.URI = serve(t, s)
			r, err := drive(t, c.spec, loadgen.Limit{Requests: c.requests})
			require.NoError(t, err)
			require.Equal(t, c.requests, r.Requests())
			require.Equal(t, c.requests, r.Latency.TotalCount())
			require.Equal(t, [3]int64{seen[0].Load(), seen[1].Load(), seen[3].Load()}, [3]int64{r.Reads, r.Writes, r.Flushes})
			require.Equal(t, (r.Reads+r.Writes)*int64(c.spec.BlockBytes), r.Bytes)
			if c.spec.FUA {
				require.Equal(t, r.Writes, fua.Load())
			}
			for i, want := range []int64{c.reads, c.writes, c.flushes} {
				if got := []int64{r.Reads, r.Writes, r.Flushes}[i]; want < 0 {
					require.Positive(t, got)
				} else {
					require.Equal(t, want, got)
				}
			}
		})
	}
}

// TestRunAgain checks that connections can be used for a warm-up, a run by time and one
// by count in turn, and that each result counts its own run only.
func TestRunAgain(t *testing.T) {
	l, err := loadgen.Open(loadgen.Spec{URI: serve(t, dummy.New(exportBytes)), Mode: loadgen.Mixed, BlockBytes: 4096, Depth: 8, Conns: 2})
	require.NoError(t, err)
	defer l.Close()
	require.EqualValues(t, exportBytes, l.SizeBytes())
	timed, err := l.Run(loadgen.Limit{Duration: 20 * time.Millisecond})
	require.NoError(t, err)
	require.Positive(t, timed.Requests())
	require.GreaterOrEqual(t, timed.Elapsed, 20*time.Millisecond)
	counted, err := l.Run(loadgen.Limit{Requests: 77})
	require.NoError(t, err)
	require.EqualValues(t, 77, counted.Requests())
}

// TestVerify checks that what verify mode wrote it finds again, over simple and
// structured replies, with blocks of another size than were written.
func TestVerify(t *testing.T) {
	for _, structured := range []bool{false, true} {
		s := dummy.New(exportBytes)
		spec := loadgen.Spec{URI: serve(t, s), Mode: loadgen.Write, Sequential: true, BlockBytes: 64 << 10, Depth: 4, Structured: structured, Verify: true}
		_, err := drive(t, spec, loadgen.Limit{Requests: exportBytes / (64 << 10)})
		require.NoError(t, err)
		spec.Mode, spec.Sequential, spec.BlockBytes = loadgen.Mixed, false, 4608
		_, err = drive(t, spec, loadgen.Limit{Requests: 1000})
		require.NoError(t, err)
	}
}

// TestFaults checks that a server that answers wrongly is found out and told in words:
// one fault of the dummy server a row.
func TestFaults(t *testing.T) {
	read := loadgen.Spec{Mode: loadgen.Read, Sequential: true, Verify: true, BlockBytes: 64 << 10, Depth: 4}
	structured := read
	structured.Structured = true
	write := loadgen.Spec{Mode: loadgen.Write, Sequential: true, BlockBytes: 64 << 10, Depth: 4}
	written := dummy.New(exportBytes)
	fill := write
	fill.URI, fill.Verify = serve(t, written), true
	_, err := drive(t, fill, loadgen.Limit{Requests: exportBytes / (64 << 10)})
	require.NoError(t, err)
	for _, c := range []struct {
		name  string
		fault func(*dummy.Server)
		blank bool // nothing was written before
		spec  loadgen.Spec
		want  string
	}{
		{"corrupt", func(s *dummy.Server) { s.CorruptAt = 777_777 }, false, read, "corrupt data at offset 777777"},
		{"corrupt chunk", func(s *dummy.Server) { s.CorruptAt = 777_777 }, false, structured, "corrupt data at offset 777777"},
		{"never written", func(s *dummy.Server) {}, true, read, "corrupt data at offset 0"},
		{"hole", func(s *dummy.Server) {}, true, structured, "a hole, want the pattern"},
		{"error", func(s *dummy.Server) { s.FailAt = 1 << 20 }, false, read, "command 0 at [1048576, +65536) answered with error 5"},
		{"write error", func(s *dummy.Server) { s.FailAt = 1 << 20 }, false, write, "command 1 at [1048576, +65536) answered with error 5"},
		{"answered twice", func(s *dummy.Server) { s.Twice = true }, false, write, "no outstanding request"},
		{"hang-up", func(s *dummy.Server) { s.Hangup = 9 }, false, write, "closed the connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dummy.New(exportBytes)
			c.fault(s)
			if !c.blank {
				s.CopyFrom(written)
			}
			c.spec.URI = serve(t, s)
			_, err := drive(t, c.spec, loadgen.Limit{Requests: exportBytes / (64 << 10)})
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestRefused checks that a load that cannot work is refused with the reason before it
// runs: specs that are wrong by themselves, and specs that do not suit the export.
func TestRefused(t *testing.T) {
	uri := serve(t, dummy.New(exportBytes))
	readOnly, noFlush := dummy.New(exportBytes), dummy.New(exportBytes)
	readOnly.ReadOnly, noFlush.NoFlush = true, true
	readOnlyURI, noFlushURI := serve(t, readOnly), serve(t, noFlush)
	good := loadgen.Spec{URI: uri, BlockBytes: 4096, Depth: 1}
	for _, c := range []struct {
		name   string
		change func(*loadgen.Spec)
		want   string
	}{
		{"block", func(s *loadgen.Spec) { s.BlockBytes = 1000 }, "block size 1000"},
		{"depth", func(s *loadgen.Spec) { s.Depth = 0 }, "depth 0"},
		{"connections", func(s *loadgen.Spec) { s.Conns = -1 }, "-1 connections"},
		{"percent", func(s *loadgen.Spec) { s.ReadPercent = 100 }, "100 percent"},
		{"offset", func(s *loadgen.Spec) { s.OffsetBytes = 1 }, "not aligned"},
		{"flush every", func(s *loadgen.Spec) { s.FlushEvery = -1 }, "flush every -1"},
		{"range", func(s *loadgen.Spec) { s.RangeBytes = exportBytes + 512 }, "outside the export"},
		{"small range", func(s *loadgen.Spec) { s.RangeBytes = 512 }, "has no block"},
		{"scheme", func(s *loadgen.Spec) { s.URI = "http://x" }, "want nbd:"},
		{"socket", func(s *loadgen.Spec) { s.URI = "nbd+unix:///" }, "names no socket"},
		{"nobody", func(s *loadgen.Spec) { s.URI = "nbd+unix:///?socket=" + filepath.Join(t.TempDir(), "n") }, "connecting"},
		{"read-only", func(s *loadgen.Spec) { s.URI, s.Mode = readOnlyURI, loadgen.Write }, "read-only"},
		{"FUA", func(s *loadgen.Spec) { s.URI, s.Mode, s.FUA = noFlushURI, loadgen.Write, true }, "FUA"},
		{"FLUSH", func(s *loadgen.Spec) { s.URI, s.FlushEvery = noFlushURI, 1 }, "FLUSH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := good
			c.change(&spec)
			_, err := loadgen.Open(spec)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestNoAllocation checks that a request costs no allocation: two runs, one of them
// longer by 20,000 requests, may differ by a few objects of the runtime.
func TestNoAllocation(t *testing.T) {
	l, err := loadgen.Open(loadgen.Spec{URI: serve(t, dummy.New(exportBytes)), Mode: loadgen.Mixed, BlockBytes: 4096, Depth: 32})
	require.NoError(t, err)
	defer l.Close()
	mallocs := func(requests int64) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := l.Run(loadgen.Limit{Requests: requests})
		require.NoError(t, err)
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs
	}
	mallocs(1000)
	few := mallocs(1000)
	many := mallocs(21000)
	require.Less(t, many, few+200)
}

// BenchmarkCeiling measures what the load generator reaches against a server that does
// next to nothing.
func BenchmarkCeiling(b *testing.B) {
	for _, c := range []struct {
		name string
		spec loadgen.Spec
	}{
		{"read-d1", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 4096, Depth: 1}},
		{"read-d32", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 4096, Depth: 32}},
		{"read-512-d128", loadgen.Spec{Mode: loadgen.Read, BlockBytes: 512, Depth: 128}},
		{"write-d32", loadgen.Spec{Mode: loadgen.Write, BlockBytes: 4096, Depth: 32}},
		{"mixed-d32", loadgen.Spec{Mode: loadgen.Mixed, BlockBytes: 4096, Depth: 32}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.spec.URI = serve(b, dummy.New(exportBytes))
			l, err := loadgen.Open(c.spec)
			require.NoError(b, err)
			defer l.Close()
			b.ResetTimer()
			r, err := l.Run(loadgen.Limit{Requests: int64(b.N)})
			require.NoError(b, err)
			b.ReportMetric(r.IOPS(), "iops")
			b.ReportMetric(float64(r.ClientCPU.Nanoseconds())/float64(b.N), "client-ns/req")
		})
	}
}
