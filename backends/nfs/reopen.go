package nfs

import (
	"time"

	"nbd-dataplane/blockcore"
)

// Changes are the options that a file which is open takes over.
type Changes struct {
	// Timeout is Options.Timeout.
	Timeout time.Duration
}

var _ blockcore.Reopener = (*File)(nil)

// PrepareReopen takes Changes over.
func (f *File) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(t *blockcore.Task), err error) {
	o := options.(Changes)
	f.enter(t)
	commit = func(*blockcore.Task) {
		f.timeout.Store(int64(o.Timeout))
		f.heedTimeout()
	}
	return commit, func(*blockcore.Task) {}, nil
}

// Change takes Changes over at any moment, also for the calls that are in flight: those that have waited longer fail, which is how requests are
// got rid of that wait for a server that will not come back. No drain is needed, which would wait for them. The file is in a graph. Safe from anywhere.
func (f *File) Change(o Changes) {
	f.timeout.Store(int64(o.Timeout)) // who asks next is told of it
	f.tellTimeout()
}

func (f *File) tellTimeout() {
	loop := f.node.Context()
	loop.Post(func() {
		if f.node.Context() != loop {
			f.tellTimeout() // it has moved meanwhile
			return
		}
		f.heedTimeout()
	})
}

// Timeout returns how long a request waits for the server; 0 = for ever. Safe from anywhere.
func (f *File) Timeout() time.Duration { return time.Duration(f.timeout.Load()) }

// SetTimeout is Change for who knows nothing of NFS. Safe from anywhere.
func (f *File) SetTimeout(d time.Duration) { f.Change(Changes{Timeout: d}) }

// heedTimeout has calls that are in flight wait as long as calls do now. On the loop.
func (f *File) heedTimeout() {
	d := f.Timeout()
	for _, k := range f.calls.all {
		switch {
		case k.state == callFree, k.group.limbo:
		case d == 0:
			k.deadline = 0
		default:
			k.deadline = k.since + d
		}
	}
	if f.watch != nil {
		f.watch.Stop()
		f.watch = nil
		f.keepWatch()
	}
}
