package offline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// createOptions are the options of a row of the matrix.
func createOptions(t *testing.T, o qcowtest.Options, backing, backingFormat string) CreateOptions {
	t.Helper()
	how, err := ParsePreallocation(o.Preallocation)
	if err != nil {
		t.Fatal(err)
	}
	c := CreateOptions{
		SizeBytes: o.SizeBytes, Version: o.Version, ClusterBytes: int64(o.ClusterBytes), RefcountBits: o.RefcountBits,
		ExtendedL2: o.ExtendedL2, LazyRefcounts: o.LazyRefcounts, Preallocation: how,
		Backing: backing, BackingFormat: backingFormat, DataFileRaw: o.DataFileRaw,
	}
	if o.Zstd {
		c.Compression = format.CompressionZstd
	}
	if o.DataFile {
		c.DataFile = qcowtest.DataFileName
	}
	return c
}

// create creates an image, and its data file beside it.
func create(t *testing.T, path string, o CreateOptions) {
	t.Helper()
	open := func(path string) Disk {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return Disk{f}
	}
	var data File
	if o.DataFile != "" {
		data = open(filepath.Join(filepath.Dir(path), o.DataFile))
	}
	if err := Create(open(path), data, o, nil); err != nil {
		t.Fatal(err)
	}
}

// Goal: images that we create are those that QEMU creates. Method: for each row of the matrix and random ones, qemu-img describes ours as it
// describes its own, finds it clean with the same clusters, reads zeroes or the backing file, and works on it.
func TestCreatedImagesAreThoseOfQEMU(t *testing.T) {
	rows := qcowtest.Matrix()
	rng := rand.New(rand.NewPCG(3, 3))
	for range 20 {
		rows = append(rows, qcowtest.RandomOptions(rng))
	}
	for n := 0; n < len(rows); n += qcowtest.Stride {
		o := rows[n]
		t.Run(fmt.Sprintf("%d-%s", n, o), func(t *testing.T) {
			t.Parallel()
			im := qcowtest.MakeBy(t, t.TempDir(), o, uint64(n), func(path, backing, backingFormat string) {
				create(t, path, createOptions(t, o, backing, backingFormat))
				sameAsStock(t, path, o, backing, backingFormat)
			})
			im.Verify(t)
		})
	}
}

func sameAsStock(t *testing.T, path string, o qcowtest.Options, backing, backingFormat string) {
	t.Helper()
	dir := filepath.Dir(path)
	args := []string{"create", "-q", "-f", "qcow2", "-o", o.CreateOptions()}
	if backing != "" {
		args = append(args, "-b", backing, "-F", backingFormat)
	}
	stock := filepath.Join(dir, "stock.qcow2")
	data := filepath.Join(dir, qcowtest.DataFileName)
	ourData, _ := os.ReadFile(data)
	qcowtest.Must(t, dir, "qemu-img", append(args, stock, fmt.Sprint(o.SizeBytes))...)
	theirData, _ := os.ReadFile(data)
	// QEMU rounds some up to whole clusters; ours is the disk, neither more nor less.
	if int64(len(ourData)) != int64(b2i(o.DataFile))*o.SizeBytes || !bytes.HasPrefix(theirData, ourData) {
		t.Errorf("the data files differ: %d bytes and %d", len(theirData), len(ourData))
	}
	if diff := cmp.Diff(describe(t, stock), describe(t, path)); diff != "" {
		t.Errorf("QEMU's (-) and ours (+):\n%s", diff)
	}
	theirs, ours := qcowtest.MustBeClean(t, stock, false), qcowtest.MustBeClean(t, path, false)
	// QEMU leaves a place unused where it made a table longer.
	if ours.ImageEndOffset > theirs.ImageEndOffset+int64(o.ClusterBytes) {
		t.Errorf("QEMU's image ends at %d and ours at %d", theirs.ImageEndOffset, ours.ImageEndOffset)
	}
	theirs.ImageEndOffset, ours.ImageEndOffset = 0, 0
	theirs.FragmentedClusters, ours.FragmentedClusters = 0, 0 // blocks of refcounts come in between, here or there
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("QEMU's (-) and ours (+):\n%s", diff)
	}
	qcowtest.MustEqual(t, stock, "qcow2", path, "qcow2")
}

// describe is qemu-img info, but for what differs between any two files.
func describe(t *testing.T, path string) map[string]any {
	t.Helper()
	var all map[string]any
	text := qcowtest.Must(t, filepath.Dir(path), "qemu-img", "info", "--output=json", path)
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	delete(all, "filename")
	delete(all, "actual-size")
	return all
}

// Goal: options that cannot be are refused in QEMU's words. Method: both create, and the message is compared.
func TestCreateRefusesAsQEMU(t *testing.T) {
	rows := []struct {
		stock string
		ours  CreateOptions
	}{
		{"cluster_size=513", CreateOptions{ClusterBytes: 513}},
		{"cluster_size=256", CreateOptions{ClusterBytes: 256}},
		{"cluster_size=4M", CreateOptions{ClusterBytes: 4 << 20}},
		{"refcount_bits=3", CreateOptions{RefcountBits: 3}},
		{"refcount_bits=128", CreateOptions{RefcountBits: 128}},
		{"compat=0.10,refcount_bits=8", CreateOptions{Version: 2, RefcountBits: 8}},
		{"compat=0.10,lazy_refcounts=on", CreateOptions{Version: 2, LazyRefcounts: true}},
		{"compat=0.10,extended_l2=on", CreateOptions{Version: 2, ExtendedL2: true}},
		{"extended_l2=on,cluster_size=8k", CreateOptions{ClusterBytes: 8 << 10, ExtendedL2: true}},
		{"compat=0.10,compression_type=zstd", CreateOptions{Version: 2, Compression: format.CompressionZstd}},
		{"data_file_raw=on", CreateOptions{DataFileRaw: true}},
		{"data_file=d,compat=0.10", CreateOptions{Version: 2, DataFile: "d"}},
		{"backing_fmt=qcow2", CreateOptions{BackingFormat: "qcow2"}},
		{"backing_file=b,backing_fmt=raw,preallocation=full", CreateOptions{Backing: "b", BackingFormat: "raw", Preallocation: PreallocationFull}},
		{"backing_file=b,backing_fmt=raw,data_file=d,data_file_raw=on", CreateOptions{Backing: "b", BackingFormat: "raw", DataFile: "d", DataFileRaw: true}},
		{"size=4P", CreateOptions{SizeBytes: 4 << 50}},
		{"cluster_size=512,size=1T", CreateOptions{SizeBytes: 1 << 40, ClusterBytes: 512}},
	}
	for _, row := range rows {
		args := []string{"create", "-q", "-u", "-f", "qcow2", "-o", row.stock, "x.qcow2"}
		if row.ours.SizeBytes == 0 {
			args = append(args, "1M")
			row.ours.SizeBytes = 1 << 20
		}
		ran := qcowtest.Stock(t, t.TempDir(), "qemu-img", args...)
		err := row.ours.Check()
		if err == nil || ran.Stderr != "qemu-img: x.qcow2: "+err.Error()+"\n" {
			t.Errorf("%s: QEMU says %q and we %v", row.stock, ran.Stderr, err)
		}
	}
}
