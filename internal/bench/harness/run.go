package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nbd-dataplane/internal/bench/report"
	"nbd-dataplane/internal/bench/server"
)

// Comparison is the samples of one workload.
type Comparison struct {
	Workload string          `json:"workload"`
	Series   []report.Series `json:"series"`
}

// runner holds what the samples of a run share. It belongs to the goroutine in Run.
type runner struct {
	// Immutable.
	o     Options
	dir   string
	image *image

	ganesha *ganesha // serves dir; started for the first workload on NFS
	disks   disks    // qcow2 images of the layout at hand; replaced when that is another
}

// Run measures every workload, printing a table as each is done and the targets at the
// end. What was measured before an error or a cancellation is returned with it.
func Run(ctx context.Context, o Options) (all []Comparison, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	r := &runner{o: o}
	if r.dir, err = os.MkdirTemp(o.Dir, "nbd-bench-"); err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, r.ganesha.stop(), os.RemoveAll(r.dir)) }()
	fmt.Fprintf(o.Progress, "writing %d MiB to %s\n", o.FileBytes>>20, r.dir)
	if r.image, err = createImage(filepath.Join(r.dir, "disk.img"), o.FileBytes); err != nil {
		return nil, err
	}
	var verdicts []report.Verdict
	var changes []report.Change
	for i, w := range o.Workloads {
		c, err := r.compare(ctx, w, fmt.Sprintf("%d/%d", i+1, len(o.Workloads)))
		if err != nil {
			return all, fmt.Errorf("%s: %w", w.Name(), err)
		}
		all = append(all, c)
		verdicts = append(verdicts, judge(w, c)...)
		changes = append(changes, report.Changes(c.Workload, c.Series)...)
		if err := report.Print(o.Out, fmt.Sprintf("%s  (%d rounds of %v)", w.Name(), o.Rounds, o.Duration), c.Series); err != nil {
			return all, err
		}
	}
	if err := report.PrintVerdicts(o.Out, verdicts); err != nil {
		return all, err
	}
	if err := report.PrintChanges(o.Out, changes); err != nil {
		return all, err
	}
	return all, printScaling(o, all)
}

func judge(w Workload, c Comparison) []report.Verdict {
	var all []report.Verdict
	for _, s := range c.Series {
		if s.Ours && len(s.Samples) > 0 {
			all = append(all, report.Judge(c.Workload, s, c.Series, w.Target()))
		}
	}
	return all
}

// compare runs all rounds of one workload.
func (r *runner) compare(ctx context.Context, w Workload, progress string) (Comparison, error) {
	c := Comparison{Workload: w.Name()}
	var kinds []server.Kind
	for _, k := range r.o.Servers {
		if k.Serves(w.Storage) {
			kinds = append(kinds, k)
			c.Series = append(c.Series, report.Series{Server: k.Name, Ours: k.Ours, Peer: k.Peer, RevisionOf: k.RevisionOf})
		}
	}
	if err := r.prepare(ctx, w, kinds); err != nil {
		return c, err
	}
	for round := range r.o.Rounds {
		for i := range kinds {
			at := (i + round) % len(kinds)
			sample, err := r.sample(ctx, w, kinds[at], round)
			if err != nil {
				return c, fmt.Errorf("round %d, %s: %w", round+1, kinds[at].Name, err)
			}
			c.Series[at].Samples = append(c.Series[at].Samples, sample)
			fmt.Fprintf(r.o.Progress, "%s %s  round %d/%d  %-22s %9.0f IOPS  %8.1f MB/s  %7.2f us CPU/req\n",
				progress, w.Name(), round+1, r.o.Rounds, kinds[at].Name, sample.IOPS, sample.MBps, sample.CPUus)
		}
	}
	return c, nil
}

// sample starts a server, measures it and stops it.
func (r *runner) sample(ctx context.Context, w Workload, k server.Kind, round int) (sample report.Sample, err error) {
	if err := ctx.Err(); err != nil {
		return sample, err
	}
	dir, err := os.MkdirTemp("", "nbd-bench-")
	if err != nil {
		return sample, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	setup, err := r.setup(ctx, w, k, dir)
	if err != nil {
		return sample, err
	}
	defer func() { err = errors.Join(err, r.settle(w, setup.File)) }()
	if k.Direct {
		return r.direct(w, setup.File, round)
	}
	in, err := server.Start(k, setup)
	if err != nil {
		return sample, err
	}
	defer func() { err = errors.Join(err, in.Stop()) }()
	m := measurement{
		workload: w, server: in, duration: r.o.Duration, warmUp: r.o.WarmUp, rangeBytes: setup.SizeBytes,
		syscalls: r.o.Syscalls && round == 0, seed: uint64(round),
	}
	sample, err = m.run(ctx)
	sample.Round = round
	return sample, err
}

// prepare has what is to be served be there, in the state that the workload wants.
func (r *runner) prepare(ctx context.Context, w Workload, kinds []server.Kind) error {
	if w.Storage == server.NFS {
		if err := r.share(ctx); err != nil {
			return err
		}
	}
	if w.Storage != server.Qcow2 {
		return r.image.prepare(w.Storage)
	}
	if r.disks.layout != w.Layout {
		if err := r.disks.remove(); err != nil {
			return err
		}
		fmt.Fprintf(r.o.Progress, "making the images %s\n", w.Layout)
		r.disks = disks{layout: w.Layout, dir: filepath.Join(r.dir, "qcow2"), raw: r.image}
		if err := r.disks.create(ctx, kinds); err != nil {
			return fmt.Errorf("making the images: %w", err)
		}
	}
	return r.disks.prepare(kinds)
}

// setup is what a server is to serve in one sample.
func (r *runner) setup(ctx context.Context, w Workload, k server.Kind, dir string) (server.Setup, error) {
	s := server.Setup{Storage: w.Storage, File: r.image.path, SizeBytes: r.image.sizeBytes, Dir: dir, Programs: r.o.Programs}
	if w.Storage == server.NFS {
		s.File = r.ganesha.url(r.image.path)
	}
	if w.Storage != server.Qcow2 {
		return s, nil
	}
	s.File, s.SizeBytes, s.L2CacheBytes = r.disks.top(k), r.disks.sizeBytes(), w.rule().l2CacheBytes
	return s, r.disks.renew(ctx, k)
}

// settle writes back what a sample left dirty.
func (r *runner) settle(w Workload, file string) error {
	if !w.writes() || w.Storage == server.Null {
		return nil
	}
	if w.Storage == server.NFS {
		file = r.image.path
	}
	return settle(file)
}
