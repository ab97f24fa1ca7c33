package harness

import (
	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/server"
)

// Layout is what is in a qcow2 image, and below it.
type Layout string

// The layouts. Clusters have 64 KiB, QEMU's default.
const (
	Full      Layout = "full"     // every cluster is allocated
	Empty     Layout = "empty"    // none is; made anew for each sample
	Chain1    Layout = "chain1"   // a full image below an overlay,
	Chain4    Layout = "chain4"   // below four of them,
	Chain16   Layout = "chain16"  // below sixteen
	Vast      Layout = "1t-cold"  // a disk of 1 TiB whose L2 tables fit into the cache, which has nothing yet
	VastSmall Layout = "1t-small" // the same with a cache for a hundredth of them
)

// layoutRule says what a layout is made of, and how it is used.
type layoutRule struct {
	sizeBytes    int64 // of the disk; 0 = as long as the file that all others serve
	overlays     int
	stepBytes    int64 // there is data at the multiples of it; 0 = everywhere
	l2CacheBytes int64 // 0 = the server's default
	fresh        bool  // each sample begins with an empty image
}

// The number of places with data on a disk of 1 TiB is that of an image that is quickly made; there are eight in what an L2 table maps, and all 2,048
// tables are there.
const (
	vastBytes = 1 << 40
	vastStep  = 64 << 20

	// emptyBytes is so much that two random writes seldom meet in one cluster.
	emptyBytes = 64 << 30
)

var layouts = map[Layout]layoutRule{
	Full:      {},
	Empty:     {sizeBytes: emptyBytes, fresh: true},
	Chain1:    {overlays: 1},
	Chain4:    {overlays: 4},
	Chain16:   {overlays: 16},
	Vast:      {sizeBytes: vastBytes, stepBytes: vastStep, l2CacheBytes: 128 << 20},
	VastSmall: {sizeBytes: vastBytes, stepBytes: vastStep, l2CacheBytes: 1 << 20},
}

func (w Workload) rule() layoutRule { return layouts[w.Layout] }

// requests is how many a sample consists of; 0 = as many as there is time for.
func (w Workload) requests() int64 {
	switch {
	case w.Layout == Empty && w.BlockBytes > 4096:
		return 8192 // 512 MiB
	case w.Layout == Empty:
		return 32768
	case w.Layout == Vast:
		return 8192 // so that every fourth read finds a table that is not in memory yet
	}
	return 0
}

// qcow2Matrix are the workloads on qcow2 images.
func qcow2Matrix() []Workload {
	const q = server.Qcow2
	var all []Workload
	add := func(l Layout, some []Workload) {
		for _, w := range some {
			w.Layout = l
			all = append(all, w)
		}
	}
	reads, writes := oneWay[:1], oneWay[1:]
	add(Full, random(Load, q, 1, oneWay, 1, 32))
	add(Full, sequential(Load, q, 1, 1<<20))
	add(Empty, random(Load, q, 1, writes, 1, 32))
	add(Empty, []Workload{{Client: Load, Storage: q, Mode: loadgen.Write, BlockBytes: 64 << 10, Depth: 32, Conns: 1}})
	for _, l := range []Layout{Chain1, Chain4, Chain16} {
		add(l, random(Load, q, 1, reads, 32))
	}
	add(Vast, random(Load, q, 1, reads, 32))
	add(VastSmall, random(Load, q, 1, reads, 32))
	return all
}
