package loadgen

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Load is a set of negotiated connections that do what one Spec says. It is used by one
// goroutine at a time.
type Load struct {
	// Immutable.
	spec    Spec
	info    exportInfo
	workers []*worker
}

// Open connects and negotiates every connection of spec.
func Open(spec Spec) (*Load, error) {
	spec = spec.withDefaults()
	if err := spec.validate(); err != nil {
		return nil, err
	}
	to, err := parseURI(spec.URI)
	if err != nil {
		return nil, err
	}
	l := &Load{spec: spec}
	for i := range spec.Conns {
		if err := l.connect(to, i); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return l, nil
}

// connect adds the connection with index i.
func (l *Load) connect(to endpoint, i int) error {
	fd, err := to.connect()
	if err != nil {
		return err
	}
	info, err := negotiate(fd, to.export, l.spec.Structured)
	if err == nil {
		err = l.suits(info)
	}
	var spans []span
	if err == nil {
		spans, err = l.spec.spans(info.sizeBytes)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	l.info = info
	l.workers = append(l.workers, newWorker(l.spec, i, fd, info, spans[i]))
	return nil
}

// suits checks that the export can do what the load will ask of it.
func (l *Load) suits(info exportInfo) error {
	writes := l.spec.Mode != Read
	switch {
	case writes && info.flags&flagReadOnly != 0:
		return errors.New("the export is read-only")
	case writes && l.spec.FUA && info.flags&flagSendFUA == 0:
		return errors.New("the export does not support FUA")
	case l.spec.FlushEvery > 0 && info.flags&flagSendFlush == 0:
		return errors.New("the export does not support FLUSH")
	}
	return nil
}

// SizeBytes returns the size of the export.
func (l *Load) SizeBytes() int64 { return l.info.sizeBytes }

// Run drives all connections until the limit and returns what they did together. After
// an error the connections are good for nothing but Close.
func (l *Load) Run(limit Limit) (Result, error) {
	if want := len(l.workers) + 2; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(l.workers))
	for i, w := range l.workers {
		wg.Go(func() { errs[i] = w.run(share(limit, i, len(l.workers))) })
	}
	wg.Wait()
	total := Result{Latency: newHistogram()}
	for _, w := range l.workers {
		total.merge(w.result)
	}
	return total, errors.Join(errs...)
}

// share returns what connection i of n does of limit.
func share(limit Limit, i, n int) Limit {
	if limit.Requests > 0 {
		begin, end := limit.Requests*int64(i)/int64(n), limit.Requests*int64(i+1)/int64(n)
		limit.Requests = end - begin
		limit.Duration = 0
	}
	return limit
}

// Close disconnects in the way the protocol wants it. NBD proto.md, "Terminating the
// transmission phase".
func (l *Load) Close() error {
	var errs []error
	for _, w := range l.workers {
		if w.send.empty() { // else a run broke off, and nothing can be told any more
			w.send.push(0, cmdDisc, 0, 0, 0, nil)
			_ = w.send.flush(w.fd) // a server that has gone is as good as one that was told
		}
		errs = append(errs, unix.Close(w.fd))
	}
	l.workers = nil
	return errors.Join(errs...)
}
