package qcowtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Work does random operations on the image with qemu-io, in one process, and does the same to Flat.
func (im *Image) Work(t testing.TB, operations int) {
	t.Helper()
	im.workAs(t, "qcow2", operations)
}

func (im *Image) workAs(t testing.TB, format string, operations int) {
	t.Helper()
	noise := filepath.Join(t.TempDir(), "noise")
	args := []string{"-f", format, "-d", "unmap"}
	pieces := make([]byte, 64<<10)
	for i := range pieces {
		pieces[i] = byte(im.rng.Uint32())
	}
	if err := os.WriteFile(noise, pieces, 0o600); err != nil {
		t.Fatal(err)
	}
	// Compressed writes come first: QEMU 7.2 goes on filling the cluster it last put compressed data in, even if that was
	// freed by an overwrite and belongs to somebody else by now.
	for range operations / 4 {
		if command := im.compressed(noise, pieces); command != "" {
			args = append(args, "-c", command)
		}
	}
	for range operations {
		if command := im.operation(format, noise, pieces); command != "" {
			args = append(args, "-c", command)
		}
	}
	out := Must(t, filepath.Dir(im.Path), "qemu-io", append(args, im.Path)...)
	if strings.Contains(out, "failed") {
		t.Fatalf("qemu-io %q:\n%s", args, out)
	}
}

// operation chooses one operation, does it to Flat, and returns it as a command of qemu-io. It returns nothing if the
// image cannot do what was chosen.
func (im *Image) operation(format, noise string, pieces []byte) string {
	at, length := im.place()
	im.touch(at, length)
	where := im.Flat[at : at+length]
	switch kind := im.rng.IntN(9); {
	case kind < 3:
		value := byte(1 + im.rng.IntN(255))
		fill(where, value)
		return fmt.Sprintf("write -P %d %d %d", value, at, length)
	case kind < 5:
		for n := 0; n < len(where); n += len(pieces) {
			copy(where[n:], pieces)
		}
		return fmt.Sprintf("write -s %s %d %d", noise, at, length)
	case kind < 6:
		clear(where)
		return fmt.Sprintf("write -z %d %d", at, length)
	case kind < 7:
		clear(where)
		return fmt.Sprintf("write -z -u %d %d", at, length)
	case kind < 9 && format == "qcow2" && !im.Options.DataFileRaw && (im.Options.Version > 2 || im.Options.BackingLevels == 0):
		return im.discard(at, length)
	}
	return ""
}

// place is a range of whole sectors, often small, sometimes one that ends where the disk ends.
func (im *Image) place() (at, length int) {
	sectors := len(im.Flat) / 512
	cluster := max(1, im.Options.ClusterBytes/512)
	longest := []int{1, 8, cluster, 2*cluster + 3, sectors / 3}[im.rng.IntN(5)]
	count := 1 + im.rng.IntN(max(1, min(longest, sectors)))
	first := im.rng.IntN(sectors - count + 1)
	if im.rng.IntN(12) == 0 {
		first = sectors - count
	}
	if im.rng.IntN(3) == 0 { // whole clusters
		first = first / cluster * cluster
		count = min((count+cluster-1)/cluster*cluster, sectors-first)
	}
	return first * 512, count * 512
}

// compressed writes one whole cluster that nothing was done to: QEMU refuses to compress over a cluster in use. Only the
// last cluster of the disk may be shorter.
func (im *Image) compressed(noise string, pieces []byte) string {
	if !im.Options.CompressedWork {
		return ""
	}
	size := im.Options.ClusterBytes
	at := -1
	for range 10 {
		if n := im.rng.IntN((len(im.Flat) + size - 1) / size); !im.touched[n] {
			at = n * size
			break
		}
	}
	if at < 0 {
		return ""
	}
	where := im.Flat[at:min(at+size, len(im.Flat))]
	im.touch(at, len(where))
	if im.rng.IntN(4) == 0 { // it does not get smaller, and is stored as it is
		for n := 0; n < len(where); n += len(pieces) {
			copy(where[n:], pieces)
		}
		return fmt.Sprintf("write -c -s %s %d %d", noise, at, len(where))
	}
	value := byte(1 + im.rng.IntN(255))
	fill(where, value)
	return fmt.Sprintf("write -c -P %d %d %d", value, at, len(where))
}

func (im *Image) touch(at, length int) {
	size := im.Options.ClusterBytes
	for n := at / size; n <= (at+length-1)/size; n++ {
		im.touched[n] = true
	}
}

// discard gives whole clusters away, which read as zeroes afterwards.
func (im *Image) discard(at, length int) string {
	size := im.Options.ClusterBytes
	end := (at + length) / size * size
	at = (at + size - 1) / size * size
	if at+length == len(im.Flat) {
		end = len(im.Flat)
	}
	if end <= at {
		return ""
	}
	clear(im.Flat[at:end])
	return fmt.Sprintf("discard %d %d", at, end-at)
}

func fill(where []byte, value byte) {
	for i := range where {
		where[i] = value
	}
}
