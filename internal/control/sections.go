package control

import (
	"context"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// sectionInfo is a drained section as x-query-drains tells it.
type sectionInfo struct {
	// ID is what x-drain-renew and x-drain-end take; null = the section of a change, which ends with that.
	ID      *string  `json:"id"`
	Why     string   `json:"why"`
	Phase   string   `json:"phase"`
	Settled bool     `json:"settled"`
	Exports []string `json:"exports"`
	Nodes   []string `json:"nodes"`
	AgeMS   int64    `json:"age-ms"`
	HeldMS  int64    `json:"held-ms"`
	LeaseMS int64    `json:"lease-ms,omitempty"`

	ThrottleUS int64 `json:"throttle-us"`
	UnplugUS   int64 `json:"unplug-us"`
	QuiesceUS  int64 `json:"quiesce-us"`
	SettleUS   int64 `json:"settle-us"`

	// WaitsFor has the first of whom the section waits for, and Waiting counts all of them.
	WaitsFor []culprit `json:"waits-for"`
	Waiting  int       `json:"waiting"`
}

// waitsForMax bounds how many are named of those whom a section waits for.
const waitsForMax = 32

// askingMax bounds how long one answer asks loops whom sections wait for. A loop that hangs is asked for a second (and named) by each section, and
// there may be many sections: those behind name nobody then.
const askingMax = 2 * time.Second

// queryDrains lists all drained sections that were asked for and are not over: those that operators hold, and those of changes.
func (p *Plane) queryDrains(context.Context, *qmp.Call) (any, error) {
	list, begin := []sectionInfo{}, time.Now()
	for _, s := range p.graph.SectionStates() {
		info := p.describeSection(s)
		if time.Since(begin) < askingMax {
			info.nameCulprits(p.graph.WaitsFor(s.Section))
		}
		list = append(list, info)
	}
	return list, nil
}

func (p *Plane) describeSection(s blockcore.SectionState) sectionInfo {
	d, t := s.Section, s.Section.Timings()
	age := time.Since(d.Begun())
	info := sectionInfo{
		Why: d.Why(), Phase: s.Phase.String(), Settled: s.Phase == blockcore.PhaseStill, Exports: p.exportIDs(s.Roots), Nodes: []string{}, WaitsFor: []culprit{},
		AgeMS: age.Milliseconds(), HeldMS: d.Held().Milliseconds(),
		ThrottleUS: t.Throttle.Microseconds(), UnplugUS: t.Unplug.Microseconds(), QuiesceUS: t.Quiesce.Microseconds(), SettleUS: t.Settle.Microseconds(),
	}
	for _, n := range s.Nodes {
		info.Nodes = append(info.Nodes, n.Name())
	}
	if id := d.ID(); id != "" {
		info.ID, info.LeaseMS = &id, p.leaseLeft(id).Milliseconds()
	}
	return info
}

// nameCulprits has the oldest requests first.
func (i *sectionInfo) nameCulprits(all []blockcore.Culprit) {
	waits := describeCulprits(all)
	sortByAge(waits, func(c culprit) int64 { return c.AgeUS })
	i.Waiting, i.WaitsFor = len(waits), waits[:min(len(waits), waitsForMax)]
}

// exportIDs lists the ids of the exports among some owners.
func (p *Plane) exportIDs(roots []*blockcore.Root) []string {
	ids := []string{}
	all := p.exportsNow()
	for _, r := range roots {
		for _, e := range all {
			if e.nbd.Root() == r {
				ids = append(ids, e.id)
			}
		}
	}
	return ids
}

// leaseLeft is how long a lease lasts yet; 0 while its section waits.
func (p *Plane) leaseLeft(id string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.leases[id]; l != nil && l.section != nil {
		return time.Until(l.expires)
	}
	return 0
}

// stillness is what sections do to the nodes and owners of the graph, at one moment.
type stillness struct {
	phases map[any]blockcore.Phase // of a *Node or *Root
	by     map[any][]string
}

func (p *Plane) stillness() stillness {
	s := stillness{map[any]blockcore.Phase{}, map[any][]string{}}
	add := func(what any, state blockcore.SectionState) {
		s.phases[what] = s.phases[what].Over(state.Phase)
		label := state.Section.ID()
		if label == "" {
			label = state.Section.Why()
		}
		s.by[what] = append(s.by[what], label)
	}
	for _, state := range p.graph.SectionStates() {
		for _, n := range state.Nodes {
			add(n, state)
		}
		for _, r := range state.Roots {
			add(r, state)
		}
	}
	return s
}
