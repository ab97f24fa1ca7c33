package control

import "errors"

// The end of a process has an order:
//
//	Quiet         monitors have no command run any more, and stay connected
//	              exports let nobody in, and nothing that was held back is executed any more
//	EndSections   leases end; commands that run come to their end
//	              clients leave; exports, nodes and objects go, and monitors hear of it
//	              monitors are closed
//
// Leases end only after the input of clients has: what they have held back would run otherwise, and clients that come back
// repeat it. Close does all of it. Who has had his server adopted does what stands between, and closes last.

// Quiet has no command of a monitor begun any more, and those that run give up. It does not wait.
func (p *Plane) Quiet() { p.monitor.Quiet() }

// EndSections ends all leases, after Quiet and after the input of clients has ended, and waits for the commands and the jobs that run.
func (p *Plane) EndSections() {
	p.endLeases()
	p.monitor.Await()
	p.endLeases() // one that was being begun
	p.endJobs()
}

func (p *Plane) endLeases() {
	for _, l := range p.leasesNow() {
		p.endLease(l, "shutdown")
	}
}

// Close takes down what has been made through the plane, in order. A server that was adopted stays, with its exports and their nodes; so do objects
// then, which they may use.
func (p *Plane) Close() error {
	p.Quiet()
	defer p.monitor.Close()
	p.mu.Lock()
	adopted := p.server != nil && p.server.external
	p.mu.Unlock()
	if adopted {
		p.EndSections()
		return nil
	}
	await := p.beginStop()
	p.EndSections()
	return errors.Join(await(), p.removeNodes(), p.removeObjects())
}

// CutClients cuts all clients off: whoever waits for the end is out of patience. It does not wait.
func (p *Plane) CutClients() {
	p.mu.Lock()
	s := p.server
	p.mu.Unlock()
	if s != nil {
		s.nbd.CutAll()
	}
}

// CloseObjects takes the objects away when nothing uses them any more, with an adopted server.
func (p *Plane) CloseObjects() error { return p.removeObjects() }
