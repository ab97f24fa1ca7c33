package qcow2

import (
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

const (
	// reachMin and reachMax bound by how much more than needed the file is made longer at once: a file of some size by an eighth.
	reachMin = 1 << 20
	reachMax = 64 << 20
	// pieceBytes bounds the buffers of what is copied or written in bulk.
	pieceBytes = 256 << 10
)

// readHost fills p from off of a child. Behind its end there are zeroes: so it is in a file that was cut off after the last byte that counts.
func readHost(t *blockcore.Task, e *blockcore.Edge, p []byte, off format.Host) error {
	sizeBytes := e.Node().Size()
	if off < 0 || int64(off) >= sizeBytes {
		clear(p)
		return nil
	}
	if there := sizeBytes - int64(off); there < int64(len(p)) {
		clear(p[there:])
		p = p[:there]
	}
	return e.Read(t, p, int64(off))
}

// reach makes a child long enough for a write that ends at end, with something to spare.
func reach(t *blockcore.Task, e *blockcore.Edge, end, spare int64) error {
	sizeBytes := e.Node().Size()
	if end <= sizeBytes {
		return nil
	}
	if spare > 0 && end < int64(format.HostMax) {
		if err := e.Extend(t, (end+spare)&^(reachMin-1)); err == nil {
			return nil
		}
	}
	return e.Extend(t, end)
}

// writeMeta writes metadata of a kind to the file.
func (i *Image) writeMeta(t *blockcore.Task, p []byte, off format.Host, kind metaKind) error {
	if err := i.checkOverlap(t, off, int64(len(p)), kind); err != nil {
		return err
	}
	return i.writeHost(t, p, off)
}

// writeHost writes to the file, behind its end too.
func (i *Image) writeHost(t *blockcore.Task, p []byte, off format.Host) error {
	if err := i.reachHost(t, off+format.Host(len(p))); err != nil {
		return err
	}
	return i.file.Load().Write(t, p, int64(off), 0)
}

// reachHost makes the file long enough for a write that ends at end, with something to spare.
func (i *Image) reachHost(t *blockcore.Task, end format.Host) error {
	e := i.file.Load()
	return reach(t, e, int64(end), min(max(e.Node().Size()/8, reachMin), reachMax))
}

// writeData writes guest data to where it belongs.
func (i *Image) writeData(t *blockcore.Task, p []byte, off format.Host, flags blockcore.WriteFlags) error {
	if i.external {
		e := i.data.Load()
		if err := reach(t, e, int64(off)+int64(len(p)), 0); err != nil {
			return err
		}
		return e.Write(t, p, int64(off), flags)
	}
	if err := i.checkOverlap(t, off, int64(len(p)), metaNone); err != nil {
		return err
	}
	e := i.file.Load()
	if end := off + format.Host(len(p)); int64(end) > e.Node().Size() {
		if err := i.reachHost(t, end); err != nil {
			return err
		}
	}
	return e.Write(t, p, int64(off), flags)
}

// zeroData has guest data read as zeroes where it belongs.
func (i *Image) zeroData(t *blockcore.Task, off format.Host, lengthBytes int64) error {
	if !i.external {
		if err := i.checkOverlap(t, off, lengthBytes, metaNone); err != nil {
			return err
		}
	}
	e := i.datas()
	if err := reach(t, e, int64(off)+lengthBytes, 0); err != nil {
		return err
	}
	return e.WriteZeroes(t, blockcore.Range{Offset: int64(off), Length: lengthBytes}, 0)
}

// sync makes durable what was written to the file, by others too, and to the external data file.
func (i *Image) sync(t *blockcore.Task) error {
	if i.external {
		if err := i.data.Load().Flush(t); err != nil {
			return err
		}
	}
	file := i.file.Load()
	below := file.Node()
	if err := file.Flush(t); err != nil {
		return err
	}
	i.synced = below
	return nil
}

// parallelMax bounds how many Tasks work for one request.
const parallelMax = 16

// parallel calls fn for 0 to n-1, several at once, and returns the first error; the others are done all the same.
func parallel(t *blockcore.Task, n int, fn func(t *blockcore.Task, k int) error) error {
	if n == 0 {
		return nil
	}
	if n == 1 {
		return fn(t, 0)
	}
	j := &join{n: n, fn: fn, left: min(n, parallelMax)}
	for range j.left {
		t.Context().Spawn(j)
	}
	for j.left > 0 {
		t.Wait(&j.ended)
	}
	return j.err
}

// join is work that several Tasks share.
type join struct {
	// Owned by the context.
	n, next, left int
	fn            func(t *blockcore.Task, k int) error
	err           error
	ended         blockcore.WaitQueue
}

// Run does one part after the other.
func (j *join) Run(t *blockcore.Task) {
	for j.next < j.n {
		k := j.next
		j.next++
		if err := j.fn(t, k); err != nil && j.err == nil {
			j.err = err
		}
	}
	if j.left--; j.left == 0 {
		j.ended.WakeAll()
	}
}

// single is work that one Task does for all who want it at that time.
type single struct {
	// Owned by the context.
	busy    bool
	waiting blockcore.WaitQueue
}

// enter waits until nobody else does the work; leave lets the next one do it.
func (s *single) enter(t *blockcore.Task) {
	for s.busy {
		t.Wait(&s.waiting)
	}
	s.busy = true
}

func (s *single) leave() {
	s.busy = false
	s.waiting.WakeOne()
}

// errCorrupt is what a request gets that met corruption.
const errCorrupt = syscall.EIO
