package control

import (
	"context"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// blockStats is what query-blockstats tells of a node, in QEMU's words.
type blockStats struct {
	Node   string       `json:"node-name"`
	Stats  deviceStats  `json:"stats"`
	Driver *driverStats `json:"driver-specific,omitempty"`
	Parent *blockStats  `json:"parent,omitempty"` // the node that holds its data; QEMU calls what is below so
	Using  []string     `json:"x-exports,omitempty"`
}

// deviceStats are the counts. Requests that failed, or were invalid, are in none of the times.
type deviceStats struct {
	ReadBytes    uint64 `json:"rd_bytes"`
	WriteBytes   uint64 `json:"wr_bytes"`
	DiscardBytes uint64 `json:"unmap_bytes"`

	Reads    uint64 `json:"rd_operations"`
	Writes   uint64 `json:"wr_operations"`
	Flushes  uint64 `json:"flush_operations"`
	Discards uint64 `json:"unmap_operations"`
	Zeroes   uint64 `json:"x-zeroes_operations"` // among the writes

	ReadTime    int64 `json:"rd_total_time_ns"`
	WriteTime   int64 `json:"wr_total_time_ns"`
	FlushTime   int64 `json:"flush_total_time_ns"`
	DiscardTime int64 `json:"unmap_total_time_ns"`

	HighestWrite int64 `json:"wr_highest_offset"`

	// No request is made one with another: clients see to that.
	ReadsMerged    int `json:"rd_merged"`
	WritesMerged   int `json:"wr_merged"`
	DiscardsMerged int `json:"unmap_merged"`

	Idle *int64 `json:"idle_time_ns,omitempty"`

	ReadsFailed     uint64 `json:"failed_rd_operations"`
	WritesFailed    uint64 `json:"failed_wr_operations"`
	FlushesFailed   uint64 `json:"failed_flush_operations"`
	DiscardsFailed  uint64 `json:"failed_unmap_operations"`
	ReadsInvalid    uint64 `json:"invalid_rd_operations"`
	WritesInvalid   uint64 `json:"invalid_wr_operations"`
	FlushesInvalid  uint64 `json:"invalid_flush_operations"`
	DiscardsInvalid uint64 `json:"invalid_unmap_operations"`

	AccountInvalid bool       `json:"account_invalid"`
	AccountFailed  bool       `json:"account_failed"`
	Timed          []struct{} `json:"timed_stats"` // of intervals, which nobody can ask for
}

// driverStats are those of the drivers file and host_device.
type driverStats struct {
	Driver       string `json:"driver"`
	Done         uint64 `json:"discard-nb-ok"`
	Failed       uint64 `json:"discard-nb-failed"`
	DiscardBytes uint64 `json:"discard-bytes-ok"`
}

type statsArgs struct {
	QueryNodes bool `qmp:"query-nodes,optional"`
}

// queryBlockstats tells what nodes were asked for; without query-nodes it tells of devices, of which there are none. QEMU counts for
// devices and exports but shows only devices; here nodes count, so that the exports' requests are seen at theirs.
func (p *Plane) queryBlockstats(_ context.Context, _ *qmp.Call, a *statsArgs) (any, error) {
	list := []*blockStats{}
	if !a.QueryNodes {
		return list, nil
	}
	for _, n := range p.graph.Nodes() {
		if s := p.statsOf(n, statsNestedMax); s != nil {
			list = append(list, s)
		}
	}
	return list, nil
}

// statsNestedMax bounds how many nodes are told below each other. All of them are in the list anyway, and an answer must not grow with
// the square of a chain that a monitor has made.
const statsNestedMax = 16

// statsOf are the counts of n and of what holds its data, so many levels down; nil = its loop is going.
func (p *Plane) statsOf(n *blockcore.Node, levels int) *blockStats {
	counts, err := n.Stats()
	if err != nil {
		return nil
	}
	s := &blockStats{Node: n.Name(), Stats: describeStats(&counts), Using: p.exportsOf(n)}
	if d := counts.Discards; d != nil {
		driver, _ := p.describe(n)
		s.Driver = &driverStats{driver, d.Done, d.Failed, d.Bytes}
	}
	if below := heldBy(n); below != nil && levels > 0 {
		s.Parent = p.statsOf(below, levels-1)
	}
	return s
}

// heldBy returns the child that holds the data of n; nil = there is none.
func heldBy(n *blockcore.Node) *blockcore.Node {
	if below := childOf(n, blockcore.RoleData); below != nil {
		return below
	}
	return childOf(n, blockcore.RoleFile)
}

// exportsOf returns the ids of the exports that use n.
func (p *Plane) exportsOf(n *blockcore.Node) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []string
	for id, e := range p.exports {
		if e.nbd != nil && e.nbd.Node() == n {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func describeStats(s *blockcore.NodeStats) deviceStats {
	r, w, f, d := &s.Of[blockcore.KindRead], &s.Of[blockcore.KindWrite], &s.Of[blockcore.KindFlush], &s.Of[blockcore.KindDiscard]
	stats := deviceStats{
		ReadBytes: r.Bytes, WriteBytes: w.Bytes, DiscardBytes: d.Bytes,
		Reads: r.Done, Writes: w.Done, Flushes: f.Done, Discards: d.Done, Zeroes: s.Zeroes,
		ReadTime: int64(r.Time), WriteTime: int64(w.Time), FlushTime: int64(f.Time), DiscardTime: int64(d.Time),
		HighestWrite: s.HighestWrite,
		ReadsFailed:  r.Failed, WritesFailed: w.Failed, FlushesFailed: f.Failed, DiscardsFailed: d.Failed,
		ReadsInvalid: r.Invalid, WritesInvalid: w.Invalid, FlushesInvalid: f.Invalid, DiscardsInvalid: d.Invalid,
		Timed: []struct{}{},
	}
	if s.Idle >= 0 {
		idle := int64(s.Idle)
		stats.Idle = &idle
	}
	return stats
}
