package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
)

// The statuses of image check, which are qemu-img's; 1 says that it could not be finished.
const (
	statusCorrupt   = 2
	statusLeaks     = 3
	statusUnchecked = 63 // the format has no checks
)

// imageCheck is the outcome of a check, with QEMU's names and in its order. What is zero is left out, but for the two that are always told.
type imageCheck struct {
	ImageEndOffset     int64  `json:"image-end-offset,omitempty"`
	CompressedClusters int64  `json:"compressed-clusters,omitempty"`
	TotalClusters      int64  `json:"total-clusters,omitempty"`
	CheckErrors        int64  `json:"check-errors"`
	CorruptionsFixed   int64  `json:"corruptions-fixed,omitempty"`
	LeaksFixed         int64  `json:"leaks-fixed,omitempty"`
	Corruptions        int64  `json:"corruptions,omitempty"`
	Leaks              int64  `json:"leaks,omitempty"`
	AllocatedClusters  int64  `json:"allocated-clusters,omitempty"`
	Filename           string `json:"filename"`
	Format             string `json:"format"`
	FragmentedClusters int64  `json:"fragmented-clusters,omitempty"`
}

func newImageCheck(c console) *cobra.Command {
	t := &imageChecker{c: c}
	cmd := &cobra.Command{
		Use:   "check [-q] [-f FMT] [--output=human|json] [-r leaks|all] [-U] [-T MODE] [--image-opts] FILE",
		Short: "Look an image over, and repair it",
		Long: "Looks whether an image is consistent, and with -r repairs it: 'leaks' gives back space that nothing uses, 'all' puts right what\n" +
			"is wrong as far as it can, at the risk of choosing wrongly. Make a copy first.\n\n" +
			"Exit status: 0 consistent; 1 the check could not be finished; 2 the image is corrupt; 3 it takes more space than it needs, and is\n" +
			"whole; 63 the format has no checks.",
		Example: "  nbd-dataplane image check disk.qcow2\n  nbd-dataplane image check -r all disk.qcow2",
		Args:    oneImage,
		RunE:    func(_ *cobra.Command, args []string) error { return t.run(args[0]) },
	}
	t.add(c, cmd, "quiet format output force-share source-cache image-opts")
	cmd.Flags().StringVarP(&t.repair, "repair", "r", "", "repair `WHAT`: leaks or all")
	completes(cmd, "repair", "leaks", "all")
	cmd.Flags().BoolVarP(&t.progress, "progress", "p", false, "show how much is done")
	return cmd
}

// imageChecker is one run of image check.
type imageChecker struct {
	imageFlags
	c        console
	repair   string
	progress bool
}

func (t *imageChecker) run(path string) (err error) {
	asJSON, err := t.json()
	if err != nil {
		return err
	}
	repair, known := map[string]offline.Repair{"": offline.RepairNothing, "leaks": offline.RepairLeaks, "all": offline.RepairAll}[t.repair]
	if !known {
		return failed(fmt.Errorf("Unknown option value for -r (expecting 'leaks' or 'all'): %s", t.repair))
	}
	file, err := t.openFile(path, repair != offline.RepairNothing)
	if err != nil {
		return err
	}
	defer file.closing(path, &err)
	if file.format != "qcow2" {
		return &failure{statusUnchecked, fmt.Errorf("This image format does not support checks")}
	}
	report, err := t.checkAndAgain(path, file, repair, asJSON)
	if err != nil {
		return err
	}
	if err := t.tell(path, file.format, &report, asJSON); err != nil {
		return err
	}
	switch {
	case report.CheckErrors > 0:
		return failed(fmt.Errorf("Check failed"))
	case report.Corruptions > 0:
		return exitStatus(statusCorrupt)
	case report.Leaks > 0:
		return exitStatus(statusLeaks)
	}
	return nil
}

// checkAndAgain checks, and once more after a repair, to see what is left.
func (t *imageChecker) checkAndAgain(path string, file *imageFile, repair offline.Repair, asJSON bool) (offline.Report, error) {
	report, err := t.check(path, file, repair)
	if err != nil || report.LeaksFixed == 0 && report.CorruptionsFixed == 0 {
		return report, err
	}
	if !t.quiet && !asJSON {
		fmt.Fprintf(t.c.out, "The following inconsistencies were found and repaired:\n\n    %d leaked clusters\n    %d corruptions\n\nDouble checking the fixed image now...\n",
			report.LeaksFixed, report.CorruptionsFixed)
	}
	again, err := t.check(path, file, offline.RepairNothing)
	again.LeaksFixed, again.CorruptionsFixed = report.LeaksFixed, report.CorruptionsFixed
	return again, err
}

func (t *imageChecker) check(path string, file *imageFile, repair offline.Repair) (offline.Report, error) {
	im, err := file.open(path, format.ForCheck)
	if err != nil {
		return offline.Report{}, err
	}
	bar := newProgressBar(t.c.err, t.progress)
	report, err := im.Check(offline.CheckOptions{
		Repair:   repair,
		Say:      func(line string) { fmt.Fprintln(t.c.err, line) },
		Progress: bar.show,
	})
	bar.end()
	if err != nil {
		return report, failed(fmt.Errorf("Check failed: %s", pathText(err)))
	}
	return report, file.Sync()
}

func (t *imageChecker) tell(path, format string, r *offline.Report, asJSON bool) error {
	switch {
	case asJSON:
		return writeQEMUJSON(t.c.out, imageCheck{
			ImageEndOffset: r.ImageEndOffset, TotalClusters: r.TotalClusters, CheckErrors: r.CheckErrors, CorruptionsFixed: r.CorruptionsFixed,
			LeaksFixed: r.LeaksFixed, Corruptions: r.Corruptions, Leaks: r.Leaks, AllocatedClusters: r.AllocatedClusters,
			FragmentedClusters: r.FragmentedClusters, CompressedClusters: r.CompressedClusters, Filename: path, Format: format,
		})
	case !t.quiet:
		writeReport(t.c.out, r)
	}
	return nil
}

// writeReport prints the outcome of a check for people, as qemu-img does.
func writeReport(w io.Writer, r *offline.Report) {
	if r.Clean() {
		fmt.Fprintln(w, "No errors were found on the image.")
	}
	if r.Corruptions > 0 {
		fmt.Fprintf(w, "\n%d errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n", r.Corruptions)
	}
	if r.Leaks > 0 {
		fmt.Fprintf(w, "\n%d leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n", r.Leaks)
	}
	if r.CheckErrors > 0 {
		fmt.Fprintf(w, "\n%d internal errors have occurred during the check.\n", r.CheckErrors)
	}
	if r.TotalClusters != 0 && r.AllocatedClusters != 0 {
		of := func(part, whole int64) float64 { return float64(part) * 100 / float64(whole) }
		fmt.Fprintf(w, "%d/%d = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n", r.AllocatedClusters, r.TotalClusters,
			of(r.AllocatedClusters, r.TotalClusters), of(r.FragmentedClusters, r.AllocatedClusters), of(r.CompressedClusters, r.AllocatedClusters))
	}
	if r.ImageEndOffset > 0 {
		fmt.Fprintf(w, "Image end offset: %d\n", r.ImageEndOffset)
	}
}

// now is the time that a snapshot gets.
var now = time.Now
