package control

import (
	"context"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// describe returns what is known of how n was made.
func (p *Plane) describe(n *blockcore.Node) (driver string, o *Opening) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.opened[n]; known != nil {
		return known.driver, known.options
	}
	return "unknown", &Opening{}
}

type cacheInfo struct {
	Writeback bool `json:"writeback"`
	Direct    bool `json:"direct"`
	NoFlush   bool `json:"no-flush"`
}

type imageInfo struct {
	Filename    string     `json:"filename"`
	Format      string     `json:"format"`
	VirtualSize int64      `json:"virtual-size"`
	DirtyFlag   bool       `json:"dirty-flag"`
	Backing     *imageInfo `json:"backing-image,omitempty"`
	ActualSize  *int64     `json:"actual-size,omitempty"` // nil = nobody knows
	ClusterSize int64      `json:"cluster-size,omitempty"`
	Specific    *specific  `json:"format-specific,omitempty"`
	// Snapshots are those that the image keeps; none if its loop is going.
	Snapshots []snapshotInfo `json:"snapshots,omitempty"`
}

type nodeInfo struct {
	File         string    `json:"file"`
	NodeName     string    `json:"node-name"`
	ReadOnly     bool      `json:"ro"`
	Driver       string    `json:"drv"`
	BackingFile  string    `json:"backing_file,omitempty"`
	BackingDepth int       `json:"backing_file_depth"`
	Encrypted    bool      `json:"encrypted"`
	DetectZeroes string    `json:"detect_zeroes"`
	BPS          int64     `json:"bps"`
	BPSRead      int64     `json:"bps_rd"`
	BPSWrite     int64     `json:"bps_wr"`
	IOPS         int64     `json:"iops"`
	IOPSRead     int64     `json:"iops_rd"`
	IOPSWrite    int64     `json:"iops_wr"`
	Image        imageInfo `json:"image"`
	Cache        cacheInfo `json:"cache"`
	Threshold    int64     `json:"write_threshold"`

	Bitmaps []bitmapInfo `json:"dirty-bitmaps,omitempty"`
	// Ours.
	InFlight int64  `json:"x-in-flight"`
	Quiesced int    `json:"x-quiesced"`
	Context  string `json:"x-iothread"`
	Implicit bool   `json:"x-implicit"`
	Path     string `json:"x-path"`
	// Health is of storage that may be out of reach.
	Health *healthInfo `json:"x-health,omitempty"`
}

// healthInfo is how storage is doing that may be out of reach.
type healthInfo struct {
	OK        bool   `json:"ok"`
	Refuses   bool   `json:"refuses-writes,omitempty"` // for good
	Reason    string `json:"reason,omitempty"`
	SinceMS   int64  `json:"since-ms"` // how long it has been so
	Incidents any    `json:"incidents"`
	Timeout   int64  `json:"timeout"` // seconds that a request waits; 0 = for ever
}

// conditioned is a driver of such storage.
type conditioned interface {
	Condition() (ok bool, why string, since time.Time)
	RefusesWrites() bool
	Incidents() any
	Timeout() time.Duration
}

func healthOf(n *blockcore.Node) *healthInfo {
	d, ok := n.Driver().(conditioned)
	if !ok {
		return nil
	}
	well, why, since := d.Condition()
	return &healthInfo{OK: well, Refuses: d.RefusesWrites(), Reason: why, SinceMS: time.Since(since).Milliseconds(), Incidents: d.Incidents(), Timeout: int64(d.Timeout() / time.Second)}
}

type flatArgs struct {
	Flat bool `qmp:"flat,optional"`
}

func (p *Plane) queryNamedBlockNodes(_ context.Context, _ *qmp.Call, a *flatArgs) (any, error) {
	list := []nodeInfo{}
	for _, n := range p.graph.Nodes() {
		driver, o := p.describe(n)
		info := nodeInfo{
			File: p.fileOf(n), NodeName: n.Name(), ReadOnly: !n.Writable(), Driver: driver, DetectZeroes: orOff(o.DetectZeroes),
			Image: p.image(n, a.Flat), Cache: cacheInfo{true, o.Cache.Direct, o.Cache.NoFlush},
			InFlight: n.InFlight(), Quiesced: n.Quiesced(), Context: n.Context().Name(), Implicit: n.Implicit(), Path: p.wholeFileOf(n),
			Bitmaps: bitmapsOf(n), Health: healthOf(n),
		}
		for below := childOf(n, blockcore.RoleBacking); below != nil; below = childOf(below, blockcore.RoleBacking) {
			info.BackingDepth++
			if info.BackingFile == "" {
				info.BackingFile = p.fileOf(below)
			}
		}
		list = append(list, info)
	}
	return list, nil
}

func orOff(text string) string {
	if text == "" {
		return "off"
	}
	return text
}

// filenamer is a driver that can be named by a file.
type filenamer interface{ Path() string }

// wholeFilenamer is one that knows the name from the root on, too.
type wholeFilenamer interface{ WholePath() string }

// fileOf returns the name of the file at the bottom of n, or of what is there instead: "null-co://".
func (p *Plane) fileOf(n *blockcore.Node) string {
	n = bottomOf(n)
	if f, ok := n.Driver().(filenamer); ok {
		return f.Path()
	}
	driver, _ := p.describe(n)
	return driver + "://"
}

// wholeFileOf is fileOf from the root on.
func (p *Plane) wholeFileOf(n *blockcore.Node) string {
	if f, ok := bottomOf(n).Driver().(wholeFilenamer); ok {
		return f.WholePath()
	}
	return p.fileOf(n)
}

// bottomOf is the node at the bottom of an image.
func bottomOf(n *blockcore.Node) *blockcore.Node {
	for {
		if _, ok := n.Driver().(filenamer); ok {
			return n
		}
		below := childOf(n, blockcore.RoleFile)
		if below == nil {
			return n
		}
		n = below
	}
}

func childOf(n *blockcore.Node, role blockcore.Role) *blockcore.Node {
	for _, e := range n.Children() {
		if e.Role() == role {
			return e.Node()
		}
	}
	return nil
}

func (p *Plane) image(n *blockcore.Node, flat bool) imageInfo {
	driver, _ := p.describe(n)
	info := imageInfo{Filename: p.fileOf(n), Format: driver, VirtualSize: n.Size()}
	all, _ := keeperBelow(n).node.Snapshots()
	for i := range all {
		info.Snapshots = append(info.Snapshots, describeSnapshot(&all[i]))
	}
	info.describe(n)
	below := childOf(n, blockcore.RoleBacking)
	if below == nil && n.Features().Filter && len(n.Children()) == 1 {
		below = n.Children()[0].Node()
	}
	if below != nil && !flat {
		backing := p.image(below, false)
		info.Backing = &backing
	}
	return info
}

// queryBlock lists the devices of a machine, of which a server has none.
func (p *Plane) queryBlock(context.Context, *qmp.Call) (any, error) { return []any{}, nil }

// queryBlockGraph tells the whole graph: nodes, owners, edges with their permissions.
func (p *Plane) queryBlockGraph(context.Context, *qmp.Call) (any, error) {
	type vertex struct {
		ID       int    `json:"id"`
		Type     string `json:"type"`
		Name     string `json:"name"`
		InFlight int64  `json:"x-in-flight"`
		Quiesced int    `json:"x-quiesced"`
		Context  string `json:"x-iothread"`
		Driver   string `json:"x-driver,omitempty"`
		Throttle string `json:"x-throttle-group,omitempty"`
		// Phase is that of the drain that has got farthest of those that cover it, and Sections are their ids, or reasons.
		Phase    string   `json:"x-phase"`
		Sections []string `json:"x-sections,omitempty"`
	}
	type edge struct {
		Parent int      `json:"parent"`
		Child  int      `json:"child"`
		Name   string   `json:"name"`
		Perm   []string `json:"perm"`
		Shared []string `json:"shared-perm"`
	}
	nodes := []vertex{}
	edges := []edge{}
	ids := map[any]int{}
	still := p.stillness()
	add := func(key any, v vertex) int {
		v.Phase, v.Sections = still.phases[key].String(), still.by[key]
		v.ID = len(nodes) + 1
		ids[key] = v.ID
		nodes = append(nodes, v)
		return v.ID
	}
	for _, n := range p.graph.Nodes() {
		driver, _ := p.describe(n)
		add(n, vertex{Type: "block-driver", Name: n.Name(), InFlight: n.InFlight(), Quiesced: n.Quiesced(), Context: n.Context().Name(), Driver: driver})
	}
	roots := p.graph.Roots()
	slices.SortFunc(roots, func(a, b *blockcore.Root) int { return compare(a.Name(), b.Name()) })
	link := func(parent int, e *blockcore.Edge) {
		if child, known := ids[e.Node()]; known {
			edges = append(edges, edge{parent, child, e.Name(), e.Permissions().Names(), e.Shared().Names()})
		}
	}
	for _, r := range roots {
		v := vertex{Type: "block-backend", Name: r.Name(), InFlight: r.InFlight(), Quiesced: r.Quiesced(), Context: r.Context().Name()}
		if g := r.Throttle(); g != nil {
			v.Throttle = g.Name()
		}
		link(add(r, v), r.Edge())
	}
	for _, n := range p.graph.Nodes() {
		for _, e := range n.Children() {
			if parent, known := ids[n]; known {
				link(parent, e)
			}
		}
	}
	return map[string]any{"nodes": nodes, "edges": edges}, nil
}
