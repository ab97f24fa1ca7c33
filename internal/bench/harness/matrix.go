package harness

import (
	"regexp"

	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/server"
)

const sequentialDepth = 4 // copying programs keep a few large requests in flight

var (
	allModes = []loadgen.Mode{loadgen.Read, loadgen.Write, loadgen.Mixed}
	oneWay   = []loadgen.Mode{loadgen.Read, loadgen.Write}
)

// Matrix is the full comparison. Our client sees every storage, and one and four
// connections; fio's the page cache over one, which is where its own cost hides least.
func Matrix() []Workload {
	var all []Workload
	for _, storage := range []server.Storage{server.Cached, server.Direct, server.Null} {
		for _, conns := range []int{1, 4} {
			all = append(all, random(Load, storage, conns, allModes, 1, 4, 32)...)
			all = append(all, sequential(Load, storage, conns, 256<<10, 1<<20)...)
		}
	}
	all = append(all, qcow2Matrix()...)
	all = append(all, nfsMatrix()...)
	all = append(all, random(Fio, server.Cached, 1, allModes, 1, 4, 32)...)
	return append(all, sequential(Fio, server.Cached, 1, 256<<10, 1<<20)...)
}

// Quick is the part of the matrix to look at while developing: a few minutes.
func Quick() []Workload {
	all := random(Load, server.Cached, 1, allModes, 1, 32)
	all = append(all, sequential(Load, server.Cached, 1, 1<<20)...)
	all = append(all, random(Load, server.Cached, 4, allModes[:1], 32)...)
	all = append(all, random(Load, server.Null, 1, allModes[:1], 32)...)
	return append(all, random(Fio, server.Cached, 1, oneWay, 32)...)
}

func random(c Client, s server.Storage, conns int, modes []loadgen.Mode, depths ...int) []Workload {
	var all []Workload
	for _, depth := range depths {
		for _, mode := range modes {
			all = append(all, Workload{Client: c, Storage: s, Mode: mode, BlockBytes: 4096, Depth: depth, Conns: conns})
		}
	}
	return all
}

func sequential(c Client, s server.Storage, conns int, blocks ...int) []Workload {
	var all []Workload
	for _, block := range blocks {
		for _, mode := range oneWay {
			all = append(all, Workload{Client: c, Storage: s, Mode: mode, Sequential: true, BlockBytes: block, Depth: sequentialDepth, Conns: conns})
		}
	}
	return all
}

// Select keeps the workloads whose names match.
func Select(all []Workload, name *regexp.Regexp) []Workload {
	var kept []Workload
	for _, w := range all {
		if name.MatchString(w.Name()) {
			kept = append(kept, w)
		}
	}
	return kept
}
