package control

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// onServerEvent tells monitors what happens at the NBD server. It is called on loops and does not wait.
func (p *Plane) onServerEvent(e nbd.Event) {
	if p.options.OnEvent != nil {
		p.options.OnEvent(e)
	}
	p.TellServer(e)
}

// TellServer passes an event of the NBD server on to monitors. It does not wait. Safe from anywhere.
func (p *Plane) TellServer(e nbd.Event) {
	switch e := e.(type) {
	case nbd.ConnectionOpened:
		p.monitor.Broadcast("X_CLIENT_CONNECTED", map[string]any{"id": e.ID, "export": e.Export, "peer": e.Peer.String()})
	case nbd.ConnectionClosed:
		p.monitor.Broadcast("X_CLIENT_DISCONNECTED", map[string]any{"id": e.ID, "export": e.Export, "cause": e.Cause.String()})
	case nbd.ExportResized:
		p.monitor.Broadcast("X_EXPORT_RESIZED", map[string]any{"export": e.Export, "size": e.Size})
	case nbd.ClientsHeld:
		p.monitor.Broadcast("X_CLIENTS_HELD", map[string]any{"export": e.Export, "clients": e.Clients, "limit-ms": e.Most.Milliseconds()})
	case nbd.ClientsReleased:
		p.monitor.Broadcast("X_CLIENTS_RELEASED", map[string]any{
			"export": e.Export, "clients": e.Clients, "held-ms": e.Held.Milliseconds(), "outcome": e.Outcome.String(),
		})
	case nbd.PauseRefused:
		p.monitor.Broadcast("X_PAUSE_REFUSED", map[string]any{"export": e.Export, "reason": e.Err.Error()})
	case nbd.RequestFailed:
		p.monitor.Broadcast("BLOCK_IO_ERROR", map[string]any{
			"device": e.Export, "operation": operation(e.Command), "action": "report", "reason": e.Err.Error(),
		})
	}
}

// Corruption is something in an image that cannot be right.
type Corruption struct {
	Node string // "" = the image is in no graph
	Text string
	// Offset and SizeBytes are where in the file; -1 = not known.
	Offset, SizeBytes int64
	Fatal             bool // the image takes no requests any more
}

// Corrupted tells monitors of corruption that a driver has met. It does not wait. Safe from anywhere.
func (o *Opening) Corrupted(c Corruption) {
	data := map[string]any{"device": "", "msg": c.Text, "fatal": c.Fatal}
	if c.Node != "" {
		data["node-name"] = c.Node
	}
	if c.Offset >= 0 {
		data["offset"] = c.Offset
	}
	if c.SizeBytes >= 0 {
		data["size"] = c.SizeBytes
	}
	o.plane.monitor.Broadcast("BLOCK_IMAGE_CORRUPTED", data)
}

// StorageHealth says that storage is out of reach, or within reach again, or lost to somebody else.
type StorageHealth struct {
	Node    string // "" = it is in no graph yet
	File    string
	OK      bool
	Refuses bool // nothing is written any more, and that will not change
	Why     string
	Lasted  time.Duration // how long it was away, when it is back
}

// String is one line for people.
func (h StorageHealth) String() string {
	if h.OK {
		return fmt.Sprintf("%s answers again after %v", h.File, h.Lasted.Round(time.Millisecond))
	}
	if h.Refuses {
		return fmt.Sprintf("%s is not written to any more: %s", h.File, h.Why)
	}
	return fmt.Sprintf("%s does not answer, requests wait: %s", h.File, h.Why)
}

// TellStorage tells monitors, and who else wants to know, how storage is doing. It does not wait. Safe from anywhere.
func (p *Plane) TellStorage(h StorageHealth) {
	if p.options.OnStorage != nil {
		p.options.OnStorage(h)
	}
	data := map[string]any{"node-name": h.Node, "file": h.File, "ok": h.OK, "reason": h.Why}
	if h.OK {
		data["lasted-ms"] = h.Lasted.Milliseconds()
	}
	if h.Refuses {
		data["refuses-writes"] = true
	}
	p.monitor.Broadcast("X_STORAGE_HEALTH", data)
}

// TellStorage is for the driver that is being opened. Safe from anywhere.
func (o *Opening) TellStorage(h StorageHealth) { o.plane.TellStorage(h) }

// operation is QEMU's name of what failed.
func operation(c nbd.Command) string {
	if c == nbd.CmdRead || c == nbd.CmdBlockStatus || c == nbd.CmdCache {
		return "read"
	}
	return "write"
}

// Events are the names of the events that monitors hear of.
var Events = []string{
	"BLOCK_EXPORT_DELETED", "BLOCK_IMAGE_CORRUPTED", "BLOCK_IO_ERROR", "JOB_STATUS_CHANGE", "X_CLIENTS_HELD", "X_CLIENTS_RELEASED",
	"X_CLIENT_CONNECTED", "X_CLIENT_DISCONNECTED", "X_DRAIN_BEGUN", "X_DRAIN_ENDED", "X_DRAIN_FAILED", "X_DRAIN_RESUMED",
	qmp.LostEvents, "X_EXPORT_RESIZED", "X_GRAPH_CHANGED", "X_PAUSE_REFUSED", "X_STORAGE_HEALTH",
}

// TellGraph passes an event of the graph on to monitors. It does not wait. Safe from anywhere.
func (p *Plane) TellGraph(e blockcore.Event) {
	switch e := e.(type) {
	case blockcore.DrainSettled:
		p.monitor.Broadcast("X_DRAIN_BEGUN", map[string]any{
			"why": e.Why, "throttle-us": e.Timings.Throttle.Microseconds(), "unplug-us": e.Timings.Unplug.Microseconds(),
			"quiesce-us": e.Timings.Quiesce.Microseconds(), "settle-us": e.Timings.Settle.Microseconds(),
		})
	case blockcore.DrainEnded:
		p.monitor.Broadcast("X_DRAIN_RESUMED", map[string]any{
			"why": e.Why, "held-us": e.Timings.Held.Microseconds(), "resume-us": e.Timings.Resume.Microseconds(),
		})
	case blockcore.DrainFailed:
		p.monitor.Broadcast("X_DRAIN_FAILED", map[string]any{"why": e.Why, "error": e.Err.Error(), "culprits": len(e.Err.Culprits)})
	case blockcore.JobStatusChanged:
		p.monitor.Broadcast("JOB_STATUS_CHANGE", map[string]any{"id": e.ID, "status": e.Status.String()})
	case blockcore.GraphChanged:
		p.monitor.Broadcast("X_GRAPH_CHANGED", map[string]any{"why": e.Why})
	}
}

// sortByAge puts the oldest first.
func sortByAge[T any](list []T, age func(T) int64) {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(age(b), age(a)) })
}
