package blocktest

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
)

// LayerOptions describe a Layer.
type LayerOptions struct {
	Name      string
	SizeBytes int64 // of a Layer without children; 0 takes 64 KiB
	Log       *Log
	Features  blockcore.Features

	// Exclusive has it write to its children and let nobody else do so: to all of them, or to the selected one.
	Exclusive bool
	// Lax has it ask nothing of its children and share everything.
	Lax bool
	// Park keeps reads until the node is quiesced, as a driver does that gathers.
	Park bool
	// Prompt reads from the child as soon as the node is resumed.
	Prompt bool
	// Work begins something by itself when the node is quiesced; the gate holds it.
	Work bool
}

// Layer is a driver for tests of the graph: it passes what it is asked to its child, or answers with zeroes where it
// has none, says when it is quiesced and resumed, and holds, fails or keeps requests as it is told.
//
// Analogous to the test drivers of QEMU's test-bdrv-drain.
type Layer struct {
	// Immutable.
	o    LayerOptions
	gate *Gate

	// Changed only by a Tx.
	children map[blockcore.Role]*blockcore.Edge
	node     *blockcore.Node

	// Owned by the context.
	parked blockcore.WaitQueue
	chore  *blockcore.Chore

	// Guarded by mu.
	mu       sync.Mutex
	fails    map[string]syscall.Errno
	selected blockcore.Role

	// Safe from anywhere.
	size  atomic.Int64
	still atomic.Int32 // times quiesced less times resumed
}

// NewLayer returns a Layer whose gate is open.
func NewLayer(o LayerOptions) *Layer {
	l := &Layer{o: o, gate: NewGate(), children: map[blockcore.Role]*blockcore.Edge{}, fails: map[string]syscall.Errno{}}
	l.gate.Open()
	if o.SizeBytes == 0 {
		o.SizeBytes = 64 << 10
	}
	l.size.Store(o.SizeBytes)
	return l
}

// Gate is where requests are held. Safe from anywhere.
func (l *Layer) Gate() *Gate { return l.gate }

// Still returns how often the driver was quiesced and not resumed. Safe from anywhere.
func (l *Layer) Still() int { return int(l.still.Load()) }

// Fail has the operations of a name fail: "read", "write", "flush", "resize", "close". 0 has them succeed. Safe from anywhere.
func (l *Layer) Fail(op string, errno syscall.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails[op] = errno
}

// Select names the child on which an exclusive Layer writes; "" = on all. The graph learns of it with its next change. Safe
// from anywhere.
func (l *Layer) Select(role blockcore.Role) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.selected = role
}

// enter is the beginning of every request.
func (l *Layer) enter(t *blockcore.Task, op string) error {
	l.o.Log.Add("%s: %s", l.o.Name, op)
	l.gate.pass(t)
	return l.fate(op)
}

func (l *Layer) fate(op string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errno := l.fails[op]; errno != 0 {
		return errno
	}
	return nil
}

// child is what requests go to.
func (l *Layer) child() *blockcore.Edge {
	for _, role := range []blockcore.Role{blockcore.RoleFile, blockcore.RoleBacking} {
		if e := l.children[role]; e != nil {
			return e
		}
	}
	return nil
}

// Size is that of the child, or else its own.
func (l *Layer) Size() int64 {
	if e := l.child(); e != nil {
		return e.Node().Size()
	}
	return l.size.Load()
}

// Features returns what was given to NewLayer.
func (l *Layer) Features() blockcore.Features { return l.o.Features }

// ReadAt asks the child, or gives zeroes.
func (l *Layer) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	if err := l.enter(t, "read"); err != nil {
		return err
	}
	if l.o.Park && l.still.Load() == 0 {
		l.o.Log.Add("%s: parked", l.o.Name)
		t.Wait(&l.parked)
	}
	return l.readOn(t, p, off)
}

// readOn is a read behind all that may hold it.
func (l *Layer) readOn(t *blockcore.Task, p []byte, off int64) error {
	if e := l.child(); e != nil {
		return e.Read(t, p, off)
	}
	clear(p)
	return nil
}

// WriteAt asks the child, or forgets.
func (l *Layer) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	if err := l.enter(t, "write"); err != nil {
		return err
	}
	if e := l.child(); e != nil {
		return e.Write(t, p, off, flags)
	}
	return nil
}

// Flush asks the child.
func (l *Layer) Flush(t *blockcore.Task) error {
	if err := l.enter(t, "flush"); err != nil {
		return err
	}
	if e := l.child(); e != nil {
		return e.Flush(t)
	}
	return nil
}

// Resize changes the size of a Layer without a child.
func (l *Layer) Resize(t *blockcore.Task, sizeBytes int64) error {
	if err := l.enter(t, "resize"); err != nil {
		return err
	}
	l.size.Store(sizeBytes)
	return nil
}

// Close says so.
func (l *Layer) Close(*blockcore.Task) error {
	l.o.Log.Add("%s: close (%d still)", l.o.Name, l.Still())
	return l.fate("close")
}

// Quiesce lets go of what is parked.
func (l *Layer) Quiesce() {
	l.still.Add(1)
	l.o.Log.Add("%s: quiesce", l.o.Name)
	l.parked.WakeAll()
	if l.o.Work {
		l.node.Background("work", func(t *blockcore.Task) {
			l.o.Log.Add("%s: work begins", l.o.Name)
			l.gate.pass(t)
			l.o.Log.Add("%s: work ends", l.o.Name)
		})
	}
}

// Resume goes on.
func (l *Layer) Resume() {
	l.still.Add(-1)
	l.o.Log.Add("%s: resume", l.o.Name)
	if l.o.Prompt {
		l.node.Background("read", func(t *blockcore.Task) {
			p := t.Buffers().Get(512)
			defer t.Buffers().Put(p)
			l.o.Log.Add("%s: reads at once: %s", l.o.Name, outcome(l.readOn(t, p, 0)))
		})
	}
}

// Later has a note in the log after d, by a chore of that policy. On the loop.
func (l *Layer) Later(policy blockcore.ChorePolicy, d time.Duration) {
	l.chore = l.node.NewChore(policy, func(t *blockcore.Task) {
		l.o.Log.Add("%s: chore", l.o.Name)
		l.gate.pass(t)
	})
	l.chore.After(d)
}

// Detach notes that the loop is left.
func (l *Layer) Detach() { l.o.Log.Add("%s: leaves its loop", l.o.Name) }

// Attach notes the new one.
func (l *Layer) Attach(ctx *blockcore.AioContext) { l.o.Log.Add("%s: enters %s", l.o.Name, ctx.Name()) }

// SetNode takes down which node it is.
func (l *Layer) SetNode(n *blockcore.Node) { l.node = n }

// SetChild takes down what is below.
func (l *Layer) SetChild(role blockcore.Role, e *blockcore.Edge) {
	if e == nil {
		delete(l.children, role)
		return
	}
	l.children[role] = e
}

// ChildPermissions does as the options say.
func (l *Layer) ChildPermissions(role blockcore.Role, perm, shared blockcore.Permissions) (takes, shares blockcore.Permissions) {
	l.mu.Lock()
	selected := l.selected
	l.mu.Unlock()
	switch {
	case l.o.Lax, l.o.Exclusive && selected != "" && selected != role:
		return 0, blockcore.PermAll
	case l.o.Exclusive:
		return blockcore.PermRead | blockcore.PermWrite, blockcore.PermAll &^ blockcore.PermWrite
	}
	return perm, shared
}
