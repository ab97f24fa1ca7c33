// Package fio drives an NBD server with fio's nbd engine (libnbd): a client that nobody
// here has tuned, which sends each request by itself.
package fio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Job is what fio is to do.
type Job struct {
	URI         string
	RW          string // read, write, randread, randwrite or randrw
	ReadPercent int    // of randrw
	BlockBytes  int
	Depth       int
	Conns       int
	RangeBytes  int64
	Duration    time.Duration
}

// Result is what fio reports.
type Result struct {
	Requests       int64
	IOPS           float64
	BytesPerSecond float64
	P50, P99       time.Duration // of reads and writes together, weighted; see merge
	CPU            time.Duration // of fio, its start and end included
}

// Run runs the job.
func Run(ctx context.Context, j Job) (Result, error) {
	cmd := exec.CommandContext(ctx, "fio", j.args()...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return Result{}, fmt.Errorf("running fio: %w: %s %s", err, strings.TrimSpace(errs.String()), strings.TrimSpace(out.String()))
	}
	r, err := parse(out.Bytes())
	r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, err
}

func (j Job) args() []string {
	return []string{
		"--name=bench", "--ioengine=nbd", "--uri=" + j.URI, "--thread", "--group_reporting",
		"--rw=" + j.RW, "--rwmixread=" + strconv.Itoa(j.ReadPercent),
		"--bs=" + strconv.Itoa(j.BlockBytes), "--iodepth=" + strconv.Itoa(j.Depth),
		"--numjobs=" + strconv.Itoa(j.Conns), "--size=" + strconv.FormatInt(j.RangeBytes, 10),
		"--time_based", fmt.Sprintf("--runtime=%dms", j.Duration.Milliseconds()),
		"--norandommap", "--lat_percentiles=1", "--clat_percentiles=0",
		"--percentile_list=50:99", "--output-format=json",
	}
}

// direction is one half of a job in fio's JSON.
type direction struct {
	Total int64   `json:"total_ios"`
	IOPS  float64 `json:"iops"`
	Bytes float64 `json:"bw_bytes"`
	Lat   struct {
		Percentile map[string]float64 `json:"percentile"`
	} `json:"lat_ns"`
}

func parse(text []byte) (Result, error) {
	var report struct {
		Jobs []struct {
			Error int       `json:"error"`
			Read  direction `json:"read"`
			Write direction `json:"write"`
		} `json:"jobs"`
	}
	// fio may print notes in front of its JSON.
	begin := bytes.IndexByte(text, '{')
	if begin < 0 {
		return Result{}, errors.New("reading fio's report: no JSON in it")
	}
	if err := json.Unmarshal(text[begin:], &report); err != nil {
		return Result{}, fmt.Errorf("reading fio's report: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		return Result{}, fmt.Errorf("fio reports an error: %.500s", text[begin:])
	}
	return merge(report.Jobs[0].Read, report.Jobs[0].Write), nil
}

// merge adds reads and writes. fio gives percentiles of each apart; those of a mixed job
// are their means weighted by count, which is an approximation.
func merge(r, w direction) Result {
	n := float64(max(r.Total+w.Total, 1))
	lat := func(p string) time.Duration {
		return time.Duration((r.Lat.Percentile[p]*float64(r.Total) + w.Lat.Percentile[p]*float64(w.Total)) / n)
	}
	return Result{
		Requests:       r.Total + w.Total,
		IOPS:           r.IOPS + w.IOPS,
		BytesPerSecond: r.Bytes + w.Bytes,
		P50:            lat("50.000000"),
		P99:            lat("99.000000"),
	}
}
