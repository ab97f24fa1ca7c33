package qcowtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Options is one row of the matrix of what qemu-img create can make.
type Options struct {
	Version        int // 2 or 3
	ClusterBytes   int
	RefcountBits   int
	ExtendedL2     bool
	Zstd           bool
	LazyRefcounts  bool
	Preallocation  string // off, metadata, falloc, full
	DataFile       bool
	DataFileRaw    bool
	BackingLevels  int // images below this one
	BackingIsRaw   bool
	Snapshots      int // taken during the work
	Bitmaps        int
	SizeBytes      int64
	CompressedWork bool // some of the writes are compressed ones
}

// String is the row in short, for names of tests.
func (o Options) String() string {
	words := []string{fmt.Sprintf("v%d", o.Version), fmt.Sprintf("c%d", o.ClusterBytes), fmt.Sprintf("r%d", o.RefcountBits), fmt.Sprintf("s%d", o.SizeBytes)}
	for _, flag := range []struct {
		set  bool
		word string
	}{
		{o.ExtendedL2, "extl2"}, {o.Zstd, "zstd"}, {o.LazyRefcounts, "lazy"}, {o.DataFile && !o.DataFileRaw, "data"}, {o.DataFileRaw, "dataraw"},
		{o.Preallocation != "off", o.Preallocation}, {o.BackingLevels > 0, fmt.Sprintf("backing%d", o.BackingLevels)},
		{o.BackingLevels > 0 && o.BackingIsRaw, "onraw"}, {o.Snapshots > 0, fmt.Sprintf("snap%d", o.Snapshots)},
		{o.Bitmaps > 0, fmt.Sprintf("bitmaps%d", o.Bitmaps)}, {o.CompressedWork, "comp"},
	} {
		if flag.set {
			words = append(words, flag.word)
		}
	}
	return strings.Join(words, "-")
}

// CreateOptions is the argument of qemu-img create's -o.
func (o Options) CreateOptions() string {
	words := []string{"compat=" + map[int]string{2: "0.10", 3: "1.1"}[o.Version], fmt.Sprintf("cluster_size=%d", o.ClusterBytes)}
	add := func(set bool, format string, args ...any) {
		if set {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(o.RefcountBits != 16, "refcount_bits=%d", o.RefcountBits)
	add(o.ExtendedL2, "extended_l2=on")
	add(o.Zstd, "compression_type=zstd")
	add(o.LazyRefcounts, "lazy_refcounts=on")
	add(o.Preallocation != "off", "preallocation=%s", o.Preallocation)
	add(o.DataFile, "data_file=%s", DataFileName)
	add(o.DataFileRaw, "data_file_raw=on")
	return strings.Join(words, ",")
}

var clusterSizes = []int{512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1 << 20, 2 << 20}

var preallocations = []string{"off", "off", "off", "metadata", "falloc", "full"}

// sizeFor is a disk of a good many clusters, and not always of whole ones.
func sizeFor(rng *rand.Rand, clusterBytes int) int64 {
	size := max(256<<10, min(24*int64(clusterBytes), 12<<20))
	if rng.IntN(3) == 0 {
		size += 512 * int64(1+rng.IntN(127))
	}
	return size
}

// RandomOptions is a row that qemu-img accepts, of whatever kinds can be had together.
func RandomOptions(rng *rand.Rand) Options {
	o := Options{Version: 3, RefcountBits: 1 << rng.IntN(7), ClusterBytes: clusterSizes[rng.IntN(len(clusterSizes))]}
	one := func(in int) bool { return rng.IntN(in) == 0 }
	o.Preallocation = preallocations[rng.IntN(len(preallocations))]
	o.ExtendedL2, o.Zstd, o.LazyRefcounts, o.DataFile = one(3), one(3), one(4), one(6)
	o.DataFileRaw = o.DataFile && one(2)
	if one(2) {
		o.BackingLevels, o.BackingIsRaw = rng.IntN(3), one(2)
	}
	if one(3) {
		o.Snapshots = 1 + rng.IntN(2)
	}
	if one(4) {
		o.Bitmaps = 1 + rng.IntN(2)
	}
	o.CompressedWork = one(2)
	if one(5) {
		o.Version = 2
	}
	return o.consistent(rng)
}

// consistent takes away what qemu-img refuses beside the rest.
func (o Options) consistent(rng *rand.Rand) Options {
	if o.Version == 2 {
		o.RefcountBits, o.ExtendedL2, o.Zstd, o.LazyRefcounts, o.DataFile, o.DataFileRaw, o.Bitmaps = 16, false, false, false, false, false, 0
	}
	if o.ExtendedL2 {
		o.ClusterBytes = max(o.ClusterBytes, 16384)
	}
	if o.RefcountBits == 1 {
		o.Snapshots = 0 // a snapshot counts to two
	}
	if o.RefcountBits < 8 && o.Snapshots > 0 {
		o.CompressedWork = false // many share a cluster, and each counts
	}
	if o.DataFile {
		o.Snapshots, o.CompressedWork = 0, false
	}
	if o.DataFileRaw {
		o.BackingLevels = 0
	}
	if o.BackingLevels > 0 && !o.ExtendedL2 {
		o.Preallocation = "off"
	}
	if o.BackingLevels > 0 && o.Preallocation != "off" {
		o.Preallocation = "metadata"
	}
	if o.Preallocation != "off" {
		o.LazyRefcounts, o.CompressedWork = false, false // all clusters are in use, and cannot be compressed over
	}
	o.SizeBytes = sizeFor(rng, o.ClusterBytes)
	return o
}

// Matrix is a fixed list of rows in which each option is used in each of its values at least once.
func Matrix() []Options {
	rng := rand.New(rand.NewPCG(2012, 7))
	plain := Options{Version: 3, ClusterBytes: 65536, RefcountBits: 16, Preallocation: "off", CompressedWork: true}
	var rows []Options
	add := func(change func(*Options)) {
		o := plain
		change(&o)
		rows = append(rows, o.consistent(rng))
	}
	for _, size := range clusterSizes {
		add(func(o *Options) { o.ClusterBytes = size })
		add(func(o *Options) { o.ClusterBytes, o.Snapshots, o.RefcountBits = size, 1, 1<<(1+rng.IntN(6)) })
	}
	for bits := 1; bits <= 64; bits *= 2 {
		add(func(o *Options) { o.RefcountBits, o.ClusterBytes, o.Snapshots = bits, 4096, 2 })
	}
	for _, mode := range preallocations[2:] {
		add(func(o *Options) { o.Preallocation = mode })
		add(func(o *Options) { o.Preallocation, o.ExtendedL2 = mode, true })
		add(func(o *Options) { o.Preallocation, o.DataFile, o.DataFileRaw = mode, true, true })
	}
	add(func(o *Options) { o.Version, o.Snapshots = 2, 1 })
	add(func(o *Options) { o.Version, o.BackingLevels, o.ClusterBytes = 2, 2, 4096 })
	add(func(o *Options) { o.ExtendedL2, o.BackingLevels, o.BackingIsRaw = true, 2, true })
	add(func(o *Options) { o.ExtendedL2, o.Snapshots, o.Zstd = true, 2, true })
	add(func(o *Options) { o.Zstd, o.ClusterBytes = true, 32768 })
	add(func(o *Options) { o.LazyRefcounts = true })
	add(func(o *Options) { o.DataFile = true })
	add(func(o *Options) { o.DataFile, o.DataFileRaw, o.Bitmaps = true, true, 1 })
	add(func(o *Options) { o.DataFile, o.BackingLevels, o.ExtendedL2 = true, 1, true })
	add(func(o *Options) { o.Bitmaps, o.Snapshots, o.BackingLevels = 2, 1, 1 })
	add(func(o *Options) { o.Bitmaps, o.ClusterBytes = 2, 1024 })
	return rows
}
