package control

import (
	"context"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// queryClients lists the clients in the transmission phase.
func (p *Plane) queryClients(context.Context, *qmp.Call) (any, error) {
	type info struct {
		ID        uint64 `json:"id"`
		Export    string `json:"export"`
		Peer      string `json:"peer"`
		TLS       bool   `json:"tls"`
		DN        string `json:"dn,omitempty"`
		Seconds   int64  `json:"connected-seconds"`
		InFlight  int    `json:"in-flight"`
		Bytes     int64  `json:"bytes-held"`
		Requests  uint64 `json:"requests"`
		Failed    uint64 `json:"failed"`
		Read      uint64 `json:"bytes-read"`
		Written   uint64 `json:"bytes-written"`
		Receiving string `json:"receiving,omitempty"`
		Held      bool   `json:"held"`
		Leaving   bool   `json:"leaving"`
		Sending   bool   `json:"does-not-read"`
	}
	list := []info{}
	p.mu.Lock()
	s := p.running()
	p.mu.Unlock()
	if s == nil {
		return list, nil
	}
	for _, c := range s.nbd.Connections() {
		list = append(list, info{
			ID: c.ID, Export: c.Export, Peer: c.Peer.String(), TLS: c.Peer.TLS, DN: c.Peer.DN, Seconds: int64(time.Since(c.Since).Seconds()),
			InFlight: c.InFlight, Bytes: c.Bytes, Requests: c.Requests, Failed: c.Failed, Read: c.Read, Written: c.Written,
			Receiving: c.Receiving, Held: c.Held, Leaving: c.Leaving, Sending: c.Sending,
		})
	}
	return list, nil
}

type disconnectArgs struct {
	ID uint64 `qmp:"id"`
}

// clientDisconnect cuts one client off. It is listed as leaving until its requests in flight have ended.
func (p *Plane) clientDisconnect(_ context.Context, _ *qmp.Call, a *disconnectArgs) (any, error) {
	p.mu.Lock()
	s := p.running()
	p.mu.Unlock()
	if s == nil {
		return nil, qmp.Errorf("NBD server not running")
	}
	return nil, s.nbd.Disconnect(a.ID)
}

// requestInfo is a request as monitors see it.
type requestInfo struct {
	Export string `json:"export"`
	Node   string `json:"node,omitempty"`
	Client string `json:"client,omitempty"`
	Op     string `json:"op"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	AgeUS  int64  `json:"age-us"`
	Held   bool   `json:"held"`
	// By is the node that does it by itself, for no export.
	By string `json:"by,omitempty"`
}

func describeRequest(q blockcore.Request) requestInfo {
	return requestInfo{q.Root, q.Node, q.Client, q.Op, q.Range.Offset, q.Range.Length, q.Age.Microseconds(), q.Held, q.By}
}

// queryInflight lists the requests that are in flight or held back, and what nodes do by themselves, the oldest first.
func (p *Plane) queryInflight(context.Context, *qmp.Call) (any, error) {
	list := []requestInfo{}
	for _, q := range p.graph.Requests() {
		list = append(list, describeRequest(q))
	}
	sortByAge(list, func(i requestInfo) int64 { return i.AgeUS })
	return list, nil
}
