package main

import (
	"fmt"
	"io"
	"math"
	"time"

	"nbd-dataplane/backends/qcow2/format"
)

// write prints what is said of an image for people, as qemu-img does.
func (info *imageInfo) write(w io.Writer) {
	fmt.Fprintf(w, "image: %s\nfile format: %s\nvirtual size: %s (%d bytes)\ndisk size: %s\n", info.Filename, info.Format,
		qemuSize(info.VirtualSize), info.VirtualSize, qemuSize(uint64(info.ActualSize)))
	if info.Encrypted {
		fmt.Fprintln(w, "encrypted: yes")
	}
	if info.ClusterSize != 0 {
		fmt.Fprintf(w, "cluster_size: %d\n", info.ClusterSize)
	}
	if info.DirtyFlag {
		fmt.Fprintln(w, "cleanly shut down: no")
	}
	if info.BackingFilename != "" {
		fmt.Fprintf(w, "backing file: %s", info.BackingFilename)
		if info.FullBackingFilename != info.BackingFilename {
			fmt.Fprintf(w, " (actual path: %s)", info.FullBackingFilename)
		}
		fmt.Fprintln(w)
		if info.BackingFormat != "" {
			fmt.Fprintf(w, "backing file format: %s\n", info.BackingFormat)
		}
	}
	if len(info.Snapshots) > 0 {
		writeSnapshots(w, info.Snapshots)
	}
	if info.FormatSpecific != nil {
		writeDescription(w, &info.FormatSpecific.Data)
	}
}

// writeDescription prints what only qcow2 has.
func writeDescription(w io.Writer, q *format.Description) {
	fmt.Fprintf(w, "Format specific information:\n    compat: %s\n    compression type: %s\n", q.Compat, q.CompressionType)
	line := func(name string, value *bool) {
		if value != nil {
			fmt.Fprintf(w, "    %s: %t\n", name, *value)
		}
	}
	line("lazy refcounts", q.LazyRefcounts)
	if len(q.Bitmaps) > 0 {
		fmt.Fprintln(w, "    bitmaps:")
	}
	for i, b := range q.Bitmaps {
		fmt.Fprintf(w, "        [%d]:\n            flags:\n", i)
		for n, flag := range b.Flags {
			fmt.Fprintf(w, "                [%d]: %s\n", n, flag)
		}
		fmt.Fprintf(w, "            name: %s\n            granularity: %d\n", b.Name, b.Granularity)
	}
	fmt.Fprintf(w, "    refcount bits: %d\n", q.RefcountBits)
	if q.DataFile != "" {
		fmt.Fprintf(w, "    data file: %s\n", q.DataFile)
	}
	line("data file raw", q.DataFileRaw)
	line("corrupt", q.Corrupt)
	line("extended l2", q.ExtendedL2)
}

// writeSnapshots prints the list of snapshots, as qemu-img does.
func writeSnapshots(w io.Writer, all []snapshotInfo) {
	const columns = "%-10s%-17s%8s%20s%13s%11s\n"
	fmt.Fprintln(w, "Snapshot list:")
	fmt.Fprintf(w, columns, "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")
	for _, s := range all {
		count := ""
		if s.ICount != nil {
			count = fmt.Sprint(*s.ICount)
		}
		date := time.Unix(int64(s.DateSec), 0).Format(time.DateTime)
		clock := fmt.Sprintf("%02d:%02d:%02d.%03d", s.VMClockSec/3600, s.VMClockSec/60%60, s.VMClockSec%60, s.VMClockNsec/1e6)
		fmt.Fprintf(w, columns, s.ID, s.Name, qemuSize(s.VMStateSize), date, clock, count)
	}
}

// qemuSize is a number of bytes as QEMU prints it: three digits that count, and the next unit from 1000 on.
func qemuSize(bytes uint64) string {
	const units = "KMGTPE"
	_, exponent := math.Frexp(float64(bytes) / (1000.0 / 1024.0))
	shift := max(0, exponent-1) / 10
	if shift == 0 {
		return fmt.Sprintf("%.3g B", float64(bytes))
	}
	return fmt.Sprintf("%.3g %ciB", float64(bytes)/float64(uint64(1)<<(10*shift)), units[shift-1])
}
