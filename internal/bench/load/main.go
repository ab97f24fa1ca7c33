// Command load drives a running NBD server with the batching load generator and prints
// what it reached:
//
//	go run ./internal/bench/load -uri 'nbd+unix:///?socket=/tmp/s' -rw read -bs 4k -depth 32 -secs 2
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"nbd-dataplane/internal/bench/loadgen"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	var (
		spec       loadgen.Spec
		limit      loadgen.Limit
		mode       string
		block      = bytesFlag(4096)
		offset     bytesFlag
		length     bytesFlag
		step       bytesFlag
		secs, warm float64
		asJSON     bool
	)
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&spec.URI, "uri", "", "server, `nbd+unix:///NAME?socket=PATH` or nbd://HOST:PORT/NAME")
	f.StringVar(&mode, "rw", "read", "read, write or mixed")
	f.IntVar(&spec.ReadPercent, "readpercent", 70, "share of reads in mixed")
	f.BoolVar(&spec.Sequential, "seq", false, "walk the range in order instead of jumping in it")
	f.Var(&block, "bs", "block size in bytes, with k or m")
	f.IntVar(&spec.Depth, "depth", 32, "requests outstanding on each connection")
	f.IntVar(&spec.Conns, "conns", 1, "connections")
	f.Var(&offset, "offset", "begin of the range of offsets, with k, m or g")
	f.Var(&length, "range", "length of the range of offsets (0 = to the end)")
	f.Var(&step, "step", "distance of the offsets from each other (0 = the block size)")
	f.Float64Var(&secs, "secs", 2, "seconds to run")
	f.Float64Var(&warm, "warmup", 0, "seconds to run before that, not counted")
	f.Int64Var(&limit.Requests, "requests", 0, "stop after so many requests instead")
	f.BoolVar(&spec.FUA, "fua", false, "set FUA on every write")
	f.IntVar(&spec.FlushEvery, "flush", 0, "send a FLUSH after every so many writes")
	f.BoolVar(&spec.Structured, "structured", false, "negotiate structured replies")
	f.BoolVar(&spec.Verify, "verify", false, "write the pattern of each offset, and expect it when reading")
	f.Uint64Var(&spec.Seed, "seed", 1, "of the random offsets")
	f.BoolVar(&asJSON, "json", false, "print one JSON object instead")
	if err := f.Parse(args); err != nil {
		return err
	}
	m, err := loadgen.ParseMode(mode)
	if err != nil {
		return err
	}
	spec.Mode, spec.BlockBytes = m, int(block)
	spec.OffsetBytes, spec.RangeBytes, spec.StepBytes = int64(offset), int64(length), int64(step)
	limit.Duration = seconds(secs)
	r, err := drive(spec, limit, seconds(warm))
	if err != nil {
		return err
	}
	return print(stdout, r, asJSON)
}

func drive(spec loadgen.Spec, limit loadgen.Limit, warm time.Duration) (loadgen.Result, error) {
	l, err := loadgen.Open(spec)
	if err != nil {
		return loadgen.Result{}, err
	}
	defer l.Close()
	if warm > 0 {
		if _, err := l.Run(loadgen.Limit{Duration: warm}); err != nil {
			return loadgen.Result{}, err
		}
	}
	return l.Run(limit)
}

func print(w io.Writer, r loadgen.Result, asJSON bool) error {
	n := max(r.Requests(), 1)
	p50, p99 := us(r.Percentile(50)), us(r.Percentile(99))
	clientUs := us(r.ClientCPU) / float64(n)
	if asJSON {
		return json.NewEncoder(w).Encode(map[string]any{
			"requests": r.Requests(), "reads": r.Reads, "writes": r.Writes, "flushes": r.Flushes,
			"seconds": r.Elapsed.Seconds(), "iops": r.IOPS(), "mbps": r.BytesPerSecond() / 1e6,
			"p50_us": p50, "p99_us": p99, "client_cpu_us": clientUs,
		})
	}
	_, err := fmt.Fprintf(w, "%.0f IOPS  %.1f MB/s  p50 %.1f us  p99 %.1f us  max %.1f us  (%d reads, %d writes, %d flushes in %.2f s; client %.2f us CPU a request)\n",
		r.IOPS(), r.BytesPerSecond()/1e6, p50, p99, us(time.Duration(r.Latency.Max())),
		r.Reads, r.Writes, r.Flushes, r.Elapsed.Seconds(), clientUs)
	return err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// bytesFlag is a number of bytes on the command line.
type bytesFlag int64

func (b *bytesFlag) String() string { return strconv.FormatInt(int64(*b), 10) }

// Set reads a number with an optional unit.
func (b *bytesFlag) Set(text string) error {
	shift := 0
	switch {
	case strings.HasSuffix(text, "k"):
		shift = 10
	case strings.HasSuffix(text, "m"):
		shift = 20
	case strings.HasSuffix(text, "g"):
		shift = 30
	}
	n, err := strconv.ParseInt(strings.TrimRight(text, "kmg"), 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return fmt.Errorf("%q is no size", text)
	}
	*b = bytesFlag(n << shift)
	return nil
}
