package filters

import (
	"fmt"
	"math"
	"syscall"

	"nbd-dataplane/blockcore"
)

// BlkdebugOptions are those of QEMU's blkdebug driver that have a meaning here.
type BlkdebugOptions struct {
	InjectError []BlkdebugInjectError
}

// BlkdebugInjectError is one element of inject-error.
type BlkdebugInjectError struct {
	// Event is the place in the code; "" and "none" are every place. Of the others only those are known that a node without a
	// format passes.
	Event string
	// IOType is a kind of request; "" takes all that its event allows.
	IOType string
	// Errno is the error; 0 takes EIO.
	Errno int
	// Sector restricts the error to requests for one sector of 512 bytes; nil = all.
	Sector *int64
	// Once: the error is injected once only.
	Once bool
	// Immediately is accepted: whether an error comes at once or soon makes no difference to a Task.
	Immediately bool
}

// blkdebugEvents are the events of QEMU's that are passed by requests which an image format has nothing to do with.
var blkdebugEvents = map[string]InjectOps{
	"":              InjectDefault | InjectStatus,
	"none":          InjectDefault | InjectStatus,
	"read_aio":      InjectRead,
	"write_aio":     InjectWrite,
	"pwritev":       InjectWrite,
	"pwritev_zero":  InjectZero,
	"flush_to_os":   InjectFlush,
	"flush_to_disk": InjectFlush,
}

const sectorBytes = 512

// Inject returns the options of an Inject that does the same.
func (o BlkdebugOptions) Inject() (InjectOptions, error) {
	var all InjectOptions
	for i, e := range o.InjectError {
		rule, err := e.rule()
		if err != nil {
			return all, fmt.Errorf("inject-error.%d: %w", i, err)
		}
		all.Rules = append(all.Rules, rule)
	}
	return all, checkRules(all.Rules)
}

func (e *BlkdebugInjectError) rule() (InjectRule, error) {
	passes, known := blkdebugEvents[e.Event]
	if !known {
		return InjectRule{}, fmt.Errorf("Parameter 'event' does not accept value '%s'", e.Event)
	}
	ops, err := ParseInjectOp(e.IOType)
	if err != nil {
		return InjectRule{}, err
	}
	if ops &= passes; ops == 0 {
		return InjectRule{}, fmt.Errorf("no request of iotype '%s' passes event '%s'", e.IOType, e.Event)
	}
	r := InjectRule{Ops: ops, Errno: syscall.EIO}
	if e.Errno < 0 {
		return r, fmt.Errorf("errno %d is negative", e.Errno)
	}
	if e.Errno > 0 {
		r.Errno = syscall.Errno(e.Errno)
	}
	if e.Sector != nil && (*e.Sector < 0 || *e.Sector > math.MaxInt64/sectorBytes-1) {
		return r, fmt.Errorf("there is no sector %d", *e.Sector)
	}
	if e.Sector != nil {
		r.Range = blockcore.Range{Offset: *e.Sector * sectorBytes, Length: sectorBytes}
	}
	if e.Once {
		r.Times = 1
	}
	return r, nil
}
