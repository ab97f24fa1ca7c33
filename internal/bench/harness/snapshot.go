package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// snapshotDisk is the size of the disk in a full image of which snapshots are taken: a million clusters, whose data nobody looks at.
const snapshotDisk = "64G"

// snapshotTargetMin is how many times as fast as qemu-img ours should be.
const snapshotTargetMin = 1.1

// Snapshots is how long a program takes for an internal snapshot of a full image that nobody serves.
type Snapshots struct {
	Program string    `json:"program"`
	Ms      []float64 `json:"ms"`
}

// MeasureSnapshots takes snapshots with ours and qemu-img in turn, each of an image of its own.
func MeasureSnapshots(ctx context.Context, o Options) (all []Snapshots, err error) {
	dir, err := os.MkdirTemp(o.Dir, "nbd-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	programs := [][]string{{o.Programs.Ours, "image", "snapshot"}, {"qemu-img", "snapshot"}}
	for n, argv := range programs {
		all = append(all, Snapshots{Program: filepath.Base(argv[0])})
		if err := run(ctx, dir, "", "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", snapshotName(n), snapshotDisk); err != nil {
			return nil, err
		}
	}
	for round := range max(o.Rounds, 3) {
		for i := range programs {
			at := (round + i) % len(programs)
			took, err := snapshotOnce(ctx, dir, programs[at], snapshotName(at))
			if err != nil {
				return all, err
			}
			all[at].Ms = append(all[at].Ms, float64(took)/float64(time.Millisecond))
		}
	}
	ours, theirs := middle(all[0].Ms), middle(all[1].Ms)
	mark := ""
	if theirs < snapshotTargetMin*ours {
		mark = "!"
	}
	fmt.Fprintf(o.Out, "internal snapshot of a full image of %s: %s %.0f ms, qemu-img %.0f ms, %.2f times as fast  %s>=%.1f\n",
		snapshotDisk, all[0].Program, ours, theirs, theirs/ours, mark, snapshotTargetMin)
	return all, nil
}

func snapshotName(n int) string { return fmt.Sprintf("full%d.qcow2", n) }

// snapshotOnce takes a snapshot, and deletes it again, of which the time does not count.
func snapshotOnce(ctx context.Context, dir string, argv []string, name string) (time.Duration, error) {
	with := func(verb string) error {
		return run(ctx, dir, "", argv[0], append(slices.Clone(argv[1:]), verb, "one", name)...)
	}
	begin := time.Now()
	if err := with("-c"); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, with("-d")
}

func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
