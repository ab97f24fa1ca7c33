package control

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// export is an NBD export under the id by which monitors know it.
type export struct {
	// Immutable.
	id     string
	number uint64 // in the order of their making
	server *service
	nbd    *nbd.Export
	said   bool          // whoever made it has said what its clients are to meet
	remove chan struct{} // closed when it is gone

	// Guarded by Plane.mu.
	going bool
}

type exportOptions struct {
	ID            string `qmp:"id"`
	NodeName      string `qmp:"node-name"`
	Writable      bool   `qmp:"writable,optional"`
	WriteThrough  bool   `qmp:"writethrough,optional"`
	IOThread      string `qmp:"iothread,optional"`
	FixedIOThread bool   `qmp:"fixed-iothread,optional"`
	nbdExportOptions
}

type nbdExportOptions struct {
	Name            *string     `qmp:"name"`
	Description     string      `qmp:"description,optional"`
	Bitmaps         []qmp.Value `qmp:"bitmaps,optional"`
	AllocationDepth bool        `qmp:"allocation-depth,optional"`
	ThrottleGroup   string      `qmp:"x-throttle-group,optional"`
	AllowLess       bool        `qmp:"x-allow-less,optional"`
	farewellOptions
}

func (p *Plane) blockExportAdd(ctx context.Context, call *qmp.Call) (any, error) {
	return nil, p.AddExport(ctx, call.Arguments)
}

// AddExport is block-export-add for the command line.
func (p *Plane) AddExport(ctx context.Context, v qmp.Value) error {
	var head struct {
		Type string `qmp:"type,enum=nbd|vhost-user-blk|fuse|vduse-blk"`
	}
	rest, err := v.Take(&head)
	if err != nil {
		return err
	}
	if head.Type != "nbd" {
		return qmp.NotAccepted("type", head.Type)
	}
	var a exportOptions
	if err := rest.Decode(&a); err != nil {
		return err
	}
	return p.addExport(ctx, &a)
}

func (p *Plane) addExport(ctx context.Context, a *exportOptions) error {
	if !blockcore.IsIdentifier(a.ID) {
		return qmp.Errorf("Invalid block export id")
	}
	p.mu.Lock()
	_, taken := p.exports[a.ID]
	server := p.running()
	p.mu.Unlock()
	if taken {
		return qmp.Errorf("Block export id '%s' is already in use", a.ID)
	}
	n, err := p.node(a.NodeName)
	if err != nil {
		return err
	}
	if err := p.bringTo(ctx, n, a); err != nil {
		return err
	}
	switch {
	case server == nil:
		return qmp.Errorf("NBD server not running")
	case a.Writable && !n.Writable():
		return qmp.Errorf("Cannot export read-only node as writable")
	}
	farewell, err := a.farewell(nbd.FarewellRestart)
	if err != nil {
		return err
	}
	name := a.NodeName
	if a.Name != nil {
		name = *a.Name
	}
	if err := p.checkNBD(name, a); err != nil {
		return err
	}
	bitmaps, err := p.exportBitmaps(n, a)
	if err != nil {
		return err
	}
	group, err := p.optionalGroup(a.ThrottleGroup)
	if err != nil {
		return err
	}
	e, err := server.nbd.AddExport(p.graph, nbd.ExportOptions{
		Name: name, Description: a.Description, Node: n, Writable: a.Writable, WriteThrough: a.WriteThrough,
		AllocationDepth: a.AllocationDepth, Bitmaps: bitmaps, Shared: server.shared, FixedContext: a.FixedIOThread, AllowLess: a.AllowLess,
		Farewell: farewell,
	})
	if err != nil {
		return err
	}
	if err := p.adopt(a.ID, server, e, a.Farewell != ""); err != nil {
		return errors.Join(err, server.nbd.RemoveExport(ctx, e, nbd.FarewellRestart))
	}
	if group == nil {
		return nil
	}
	err = p.setThrottle(ctx, e, group)
	if err != nil {
		p.takeBack(a.ID)
	}
	return err
}

// takeBack removes an export whose making has failed.
func (p *Plane) takeBack(id string) {
	if e, err := p.export(id); err == nil && p.startRemoving(e, nbd.FarewellRestart) == nil {
		p.removeLoop(e, nbd.FarewellRestart)
	}
}

// stringMax bounds names and descriptions. NBD proto.md, "Values".
const stringMax = 4096

// checkNBD looks at what only exports of the type nbd have.
func (p *Plane) checkNBD(name string, a *exportOptions) error {
	switch {
	case len(name) > stringMax:
		return qmp.Errorf("export name '%s' too long", name)
	case len(a.Description) > stringMax:
		return qmp.Errorf("description '%s' too long", a.Description)
	}
	return nil
}

// bringTo puts n on the iothread of an export.
func (p *Plane) bringTo(ctx context.Context, n *blockcore.Node, a *exportOptions) error {
	if a.IOThread == "" {
		return nil
	}
	o, err := p.holdIOThread(a.IOThread)
	if err != nil {
		return err
	}
	defer p.letGo(o)
	if err := p.graph.Move(ctx, n, o.loop); err != nil && a.FixedIOThread {
		return err
	}
	return nil
}

func (p *Plane) optionalGroup(id string) (*blockcore.ThrottleGroup, error) {
	if id == "" {
		return nil, nil
	}
	return p.throttleGroup(id)
}

// adopt makes an export known to monitors.
func (p *Plane) adopt(id string, server *service, e *nbd.Export, said bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if server != p.running() {
		return qmp.Errorf("NBD server not running")
	}
	if _, taken := p.exports[id]; taken {
		return qmp.Errorf("Block export id '%s' is already in use", id)
	}
	p.lastExport++
	p.exports[id] = &export{id: id, number: p.lastExport, server: server, nbd: e, said: said, remove: make(chan struct{})}
	return nil
}

type exportDelArgs struct {
	ID   string `qmp:"id"`
	Mode string `qmp:"mode,optional,enum=safe|hard"`
	farewellOptions
}

// blockExportDel begins to take an export away; BLOCK_EXPORT_DELETED tells when it is gone. The mode hard cuts clients off at once, as QEMU does,
// unless something else was said, here or when the export was made.
func (p *Plane) blockExportDel(_ context.Context, _ *qmp.Call, a *exportDelArgs) (any, error) {
	e, err := p.export(a.ID)
	if err != nil {
		return nil, err
	}
	otherwise := e.nbd.Farewell()
	if a.Mode == "hard" && !e.said {
		otherwise = nbd.FarewellCut
	}
	farewell, err := a.farewell(otherwise)
	if err != nil {
		return nil, err
	}
	hiding := farewell
	if a.Mode != "hard" {
		hiding = nbd.FarewellNone
	}
	if err := p.startRemoving(e, hiding); err != nil {
		return nil, err
	}
	go p.removeLoop(e, farewell)
	return nil, nil
}

func (p *Plane) export(id string) (*export, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.exports[id]; e != nil {
		return e, nil
	}
	return nil, qmp.Errorf("Export '%s' is not found", id)
}

// startRemoving lets no client to e any more, and is followed by removeLoop. It refuses when somebody else has, and with
// FarewellNone where there are clients.
func (p *Plane) startRemoving(e *export, farewell nbd.Farewell) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.going {
		return qmp.Errorf("Export '%s' is already shutting down", e.id)
	}
	err := e.server.nbd.HideExport(e.nbd, farewell)
	if _, used := errors.AsType[*nbd.ErrInUse](err); used {
		return &nbd.ErrInUse{Export: e.id}
	}
	e.going = err == nil
	return err
}

func (p *Plane) isGoing(e *export) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.going
}

// removeLoop takes an export away and tells everybody. It ends when the last client is gone, or they wait for another export.
func (p *Plane) removeLoop(e *export, farewell nbd.Farewell) {
	ctx, cancel := context.WithTimeout(context.Background(), removeMax)
	defer cancel()
	n := e.nbd.Node()
	_ = e.server.nbd.EndExport(ctx, e.nbd, farewell) // clients that had to be cut off are in the events of the server
	if !e.server.external {
		p.bringHome(ctx, n)
	}
	p.mu.Lock()
	delete(p.exports, e.id)
	p.mu.Unlock()
	p.monitor.Broadcast("BLOCK_EXPORT_DELETED", map[string]string{"id": e.id})
	close(e.remove)
}

// bringHome puts a node that nobody uses any more back on the main loop, as QEMU does, so that iothreads can be removed. It is a favour:
// where it fails the node stays where it is.
func (p *Plane) bringHome(ctx context.Context, n *blockcore.Node) {
	if n.Context() == p.options.Main || slices.ContainsFunc(p.graph.Component(n), func(n *blockcore.Node) bool { return rootOf(n) != nil }) {
		return
	}
	_ = p.graph.Move(ctx, n, p.options.Main)
}

// exportsNow lists the exports, the newest first, as QEMU does.
func (p *Plane) exportsNow() []*export {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*export
	for _, e := range p.exports {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *export) int { return cmp.Compare(b.number, a.number) })
	return all
}

// exportInfo is what query-block-exports tells of an export. QEMU tells the first four; the rest spares people other questions.
type exportInfo struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Node     string `json:"node-name"`
	Shutting bool   `json:"shutting-down"`
	// Ours.
	Name     string `json:"x-name"`
	Size     int64  `json:"x-size"`
	Writable bool   `json:"x-writable"`
	Clients  int    `json:"x-clients"`
	InFlight int64  `json:"x-in-flight"`
	Quiesced int    `json:"x-quiesced"`
	Context  string `json:"x-iothread"`
	Throttle string `json:"x-throttle-group,omitempty"`
	// Phase is that of the drain that has got farthest of those that cover the export, and Sections are their ids, or reasons.
	Phase    string   `json:"x-phase"`
	Sections []string `json:"x-sections,omitempty"`
}

func (p *Plane) queryBlockExports(context.Context, *qmp.Call) (any, error) {
	list, still := []exportInfo{}, p.stillness()
	for _, e := range p.exportsNow() {
		r, n := e.nbd.Root(), e.nbd.Node()
		info := exportInfo{
			ID: e.id, Type: "nbd", Node: n.Name(), Shutting: p.isGoing(e),
			Name: e.nbd.Name(), Size: n.Size(), Writable: e.nbd.Writable(), Clients: e.nbd.Clients(),
			InFlight: r.InFlight(), Quiesced: r.Quiesced(), Context: r.Context().Name(),
			Phase: still.phases[r].String(), Sections: still.by[r],
		}
		if g := r.Throttle(); g != nil {
			info.Throttle = g.Name()
		}
		list = append(list, info)
	}
	return list, nil
}

type throttleArgs struct {
	ID    string        `qmp:"id"`
	Group qmp.StrOrNull `qmp:"group"`
}

// exportSetThrottle puts the clients of an export under the limits of a group, or with null under none.
func (p *Plane) exportSetThrottle(ctx context.Context, _ *qmp.Call, a *throttleArgs) (any, error) {
	e, err := p.export(a.ID)
	if err != nil {
		return nil, err
	}
	var group *blockcore.ThrottleGroup
	if !a.Group.Null {
		if group, err = p.throttleGroup(a.Group.Str); err != nil {
			return nil, err
		}
	}
	return nil, p.setThrottle(ctx, e.nbd, group)
}

func (p *Plane) setThrottle(ctx context.Context, e *nbd.Export, group *blockcore.ThrottleGroup) error {
	r := e.Root()
	d, err := p.graph.Drain(ctx, blockcore.DrainOptions{Why: "throttle " + e.Name(), Roots: []*blockcore.Root{r}, Max: p.options.DrainMax})
	if err != nil {
		return err
	}
	defer d.End()
	return p.graph.Update(ctx, "throttle "+e.Name(), func(tx *blockcore.Tx) error {
		return tx.SetThrottle(d, r, group)
	})
}
