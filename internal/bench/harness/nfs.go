package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/nfsleast"
	"nbd-dataplane/internal/bench/proc"
	"nbd-dataplane/internal/bench/report"
	"nbd-dataplane/internal/bench/server"
)

// flushEvery is how many writes there are to a FLUSH, where there are any.
const flushEvery = 16

// nfsMatrix are the workloads on a file of an NFS server.
func nfsMatrix() []Workload {
	const n = server.NFS
	all := random(Load, n, 1, oneWay, 1, 8, 32)
	all = append(all, sequential(Load, n, 1, 256<<10)...)
	for _, w := range random(Load, n, 1, oneWay[1:], 1, 8, 32) {
		w.FlushEvery = flushEvery
		all = append(all, w)
	}
	return all
}

// targetNFS is what a client of NFS has to reach. The server of NFS costs all clients the same.
func (w Workload) targetNFS() report.Target {
	t := report.Target{CPURatioMax: 0.5}
	switch {
	case w.Sequential:
	case w.Depth == 1:
		t.IOPSRatioMin = 1.1
	case w.Depth == 32:
		t.IOPSRatioMin = 1.5
	}
	return t
}

// directConns is how many connections are best where there is no NBD server, with at least directDepth calls on each.
const (
	directConns = 2
	directDepth = 4
)

// direct takes a sample of the server of NFS alone: the client's processor time stands where else that of the NBD server does.
func (r *runner) direct(w Workload, uri string, round int) (sample report.Sample, err error) {
	l, err := nfsleast.Open(nfsleast.Spec{
		URI: uri, Write: w.Mode == loadgen.Write, Sequential: w.Sequential, BlockBytes: w.BlockBytes, Depth: w.Depth,
		Conns: min(max(w.Depth/directDepth, 1), directConns), FlushEvery: w.FlushEvery, Seed: uint64(round),
	})
	if err != nil {
		return sample, err
	}
	defer l.Close()
	if _, err := l.Run(r.o.WarmUp); err != nil {
		return sample, err
	}
	before, err := proc.Busy()
	if err != nil {
		return sample, err
	}
	begin := time.Now()
	result, err := l.Run(r.o.Duration)
	if err != nil {
		return sample, err
	}
	elapsed := time.Since(begin)
	after, err := proc.Busy()
	sample = cost{server: result.ClientCPU, all: after - before, elapsed: elapsed}.sample(result.Requests())
	sample.Round, sample.IOPS, sample.MBps = round, result.IOPS(), result.BytesPerSecond()/1e6
	sample.P50us, sample.P99us = us(result.Percentile(50)), us(result.Percentile(99))
	return sample, err
}

// ganesha is an NFS server of scripts/ganesha, which ends when its standard input does.
type ganesha struct {
	// Immutable.
	script  *exec.Cmd
	input   io.Closer
	address string
}

// share has the directory with the file served over NFS.
func (r *runner) share(ctx context.Context) (err error) {
	if r.ganesha != nil {
		return nil
	}
	fmt.Fprintf(r.o.Progress, "starting nfs-ganesha\n")
	r.ganesha, err = startGanesha(ctx, r.dir)
	return err
}

func startGanesha(ctx context.Context, dir string) (*ganesha, error) {
	path, err := findScript()
	if err != nil {
		return nil, err
	}
	g := &ganesha{script: exec.CommandContext(ctx, path, dir)}
	g.script.Stderr = os.Stderr
	in, err := g.script.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := g.script.StdoutPipe()
	if err != nil {
		return nil, err
	}
	g.input = in
	if err := g.script.Start(); err != nil {
		return nil, fmt.Errorf("starting nfs-ganesha: %w", err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "address "); ok {
			g.address = address
		}
		if lines.Text() == "up" {
			return g, nil
		}
	}
	return nil, errors.Join(errors.New("nfs-ganesha did not start"), g.stop())
}

// stop ends it. There may be none.
func (g *ganesha) stop() error {
	if g == nil {
		return nil
	}
	return errors.Join(g.input.Close(), g.script.Wait())
}

// url is that of a file below the directory.
func (g *ganesha) url(path string) string { return "nfs://" + g.address + path }

// findScript looks upwards from the working directory.
func findScript() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "scripts", "ganesha")
		if _, missing := os.Stat(path); missing == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("scripts/ganesha is not in a directory above the working directory")
		}
	}
	return "", err
}
