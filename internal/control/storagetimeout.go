package control

import (
	"context"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// timeoutMaxSeconds bounds how long storage may be waited for: a year.
const timeoutMaxSeconds = 365 * 24 * 3600

// impatient is a driver of storage that may be out of reach, for which requests wait as long as they are told.
type impatient interface {
	// Timeout returns how long; 0 = for ever. Safe from anywhere.
	Timeout() time.Duration
	// SetTimeout has it be another time from now on, for requests that wait already too. It does not wait. Safe from anywhere.
	SetTimeout(d time.Duration)
}

type timeoutArgs struct {
	Node    string `qmp:"node-name"`
	Seconds int64  `qmp:"timeout"`
}

// timeoutInfo is what x-blockdev-set-timeout has changed.
type timeoutInfo struct {
	Node    string `json:"node-name"`
	File    string `json:"file"`
	Was     int64  `json:"was"`
	Timeout int64  `json:"timeout"`
}

// setTimeout changes how long requests wait for the storage of a node, or, where that is an image or a filter, of all that it stands on. It needs no drain,
// which would wait for the very requests.
func (p *Plane) setTimeout(_ context.Context, _ *qmp.Call, a *timeoutArgs) (any, error) {
	n, err := p.node(a.Node)
	if err != nil {
		return nil, err
	}
	if a.Seconds < 0 || a.Seconds > timeoutMaxSeconds {
		return nil, qmp.Expects("timeout", "seconds from 0, which is for ever, to 31536000")
	}
	list := []timeoutInfo{}
	for _, n := range below(n) {
		if d, ok := n.Driver().(impatient); ok {
			list = append(list, timeoutInfo{n.Name(), p.fileOf(n), int64(d.Timeout() / time.Second), a.Seconds})
			d.SetTimeout(time.Duration(a.Seconds) * time.Second)
		}
	}
	if len(list) == 0 {
		return nil, qmp.Errorf("Node '%s' is not on storage that has a timeout", a.Node)
	}
	return list, nil
}

// below are n and the nodes that it stands on, each once, parents first.
func below(n *blockcore.Node) (all []*blockcore.Node) {
	seen := map[*blockcore.Node]bool{}
	var down func(n *blockcore.Node)
	down = func(n *blockcore.Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		all = append(all, n)
		for _, e := range n.Children() {
			down(e.Node())
		}
	}
	down(n)
	return all
}
