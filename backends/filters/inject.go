package filters

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"

	"nbd-dataplane/blockcore"
)

// InjectOptions configure an Inject.
type InjectOptions struct {
	Rules []InjectRule
	// Seed makes what rules with a probability do the same each time; 0 = it differs.
	Seed uint64
}

// Inject fails, delays and holds requests, by rules that can be changed at any time. A request that is delayed or held is in flight: a
// drain waits for it, and names it when it gives up.
//
// Analogous to QEMU's blkdebug driver.
type Inject struct {
	blockcore.Filter

	// Changed only by a Tx.
	node *blockcore.Node // nil = in no graph yet

	// Guarded by mu.
	mu     sync.Mutex
	rules  injectRules
	random *rand.Rand
	held   []*heldRequest // in the order of their coming
}

// heldRequest waits for the rules to change.
type heldRequest struct {
	// Immutable.
	ctx *blockcore.AioContext

	// Owned by the context.
	queue    blockcore.WaitQueue
	released bool
}

var (
	_ blockcore.Reopener = (*Inject)(nil)
	_ blockcore.Adopter  = (*Inject)(nil)
)

// NewInject returns a filter with rules.
func NewInject(o InjectOptions) (*Inject, error) {
	if err := checkRules(o.Rules); err != nil {
		return nil, err
	}
	return &Inject{rules: arm(o.Rules), random: o.random()}, nil
}

func (o *InjectOptions) random() *rand.Rand {
	seed := o.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	return rand.New(rand.NewPCG(seed, 0))
}

// SetNode implements blockcore.Adopter.
func (f *Inject) SetNode(n *blockcore.Node) { f.node = n }

// SetRules replaces the rules. What is held looks at the new ones. Safe from anywhere, and no drain is needed, which would wait for
// what is held.
func (f *Inject) SetRules(rules []InjectRule) error {
	if err := checkRules(rules); err != nil {
		return err
	}
	f.mu.Lock()
	f.rules = arm(rules)
	held := f.held
	f.held = nil
	f.mu.Unlock()
	for _, h := range held {
		h.ctx.Post(func() {
			h.released = true
			h.queue.WakeOne()
		})
	}
	return nil
}

// Held returns how many requests are held now. Safe from anywhere.
func (f *Inject) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

// PrepareReopen takes other rules. options are InjectOptions.
func (f *Inject) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(*blockcore.Task), err error) {
	o, ok := options.(InjectOptions)
	if !ok {
		return nil, nil, fmt.Errorf("%T are no options of error injection: %w", options, syscall.EINVAL)
	}
	if err := checkRules(o.Rules); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rules, random := f.rules, f.random
	f.rules, f.random = arm(o.Rules), o.random()
	return func(*blockcore.Task) {}, func(*blockcore.Task) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.rules, f.random = rules, random
	}, nil
}

// meet takes a request through the rules.
func (f *Inject) meet(t *blockcore.Task, op InjectOps, at blockcore.Range) error {
	rule, h := f.look(t, op, at)
	for h != nil {
		for !h.released {
			t.Wait(&h.queue)
		}
		rule, h = f.look(t, op, at)
	}
	if rule.Delay > 0 {
		t.Sleep(rule.Delay)
	}
	if rule.Errno != 0 {
		return fmt.Errorf("injected into %v: %w", at, rule.Errno)
	}
	return nil
}

// look returns the rule for a request. If that is to be held, what it is to wait with.
func (f *Inject) look(t *blockcore.Task, op InjectOps, at blockcore.Range) (InjectRule, *heldRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rule := f.rules.pick(op, at, f.random.Float64)
	if rule == nil {
		return InjectRule{}, nil
	}
	if !rule.Hold {
		return *rule, nil
	}
	h := &heldRequest{ctx: t.Context()}
	f.held = append(f.held, h)
	return InjectRule{}, h
}

// ReadAt reads as the rules let it.
func (f *Inject) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	if err := f.meet(t, InjectRead, blockcore.Range{Offset: off, Length: int64(len(p))}); err != nil {
		return err
	}
	return f.Filter.ReadAt(t, p, off)
}

// WriteAt writes as the rules let it.
func (f *Inject) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	if err := f.meet(t, InjectWrite, blockcore.Range{Offset: off, Length: int64(len(p))}); err != nil {
		return err
	}
	return f.Filter.WriteAt(t, p, off, flags)
}

// Flush flushes as the rules let it. No rule holds up the last flush of a filter that is taken away: it is not for its users.
func (f *Inject) Flush(t *blockcore.Task) error {
	if f.node != nil && f.node.Closing() {
		return f.Filter.Flush(t)
	}
	if err := f.meet(t, InjectFlush, blockcore.Range{}); err != nil {
		return err
	}
	return f.Filter.Flush(t)
}

// WriteZeroes zeroes as the rules let it.
func (f *Inject) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	if err := f.meet(t, InjectZero, r); err != nil {
		return err
	}
	return f.Filter.WriteZeroes(t, r, flags)
}

// Discard discards as the rules let it.
func (f *Inject) Discard(t *blockcore.Task, r blockcore.Range) error {
	if err := f.meet(t, InjectDiscard, r); err != nil {
		return err
	}
	return f.Filter.Discard(t, r)
}

// BlockStatus tells the map as the rules let it.
func (f *Inject) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	if err := f.meet(t, InjectStatus, r); err != nil {
		return exts, err
	}
	return f.Filter.BlockStatus(t, r, exts, max)
}

// Prefetch prefetches as the rules for reads let it.
func (f *Inject) Prefetch(t *blockcore.Task, r blockcore.Range) error {
	if err := f.meet(t, InjectRead, r); err != nil {
		return err
	}
	return f.Filter.Prefetch(t, r)
}

// CachedFile knows no place: what is read there would pass the rules by.
func (f *Inject) CachedFile(blockcore.Range) (fd int, off int64, ok bool) { return 0, 0, false }
