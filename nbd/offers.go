package nbd

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
)

// Offers remembers what clients have seen under each name of an export, for longer than the export lasts, and than a Server if the next one is given
// the same Offers; with a file (OpenOffers) for longer than the process. QEMU aborts, and its guest with it, when it reconnects to less.
//
// What is added reaches the file before a client can see it: otherwise the export is refused, which harms nobody, while a promise that is not kept
// would be found out by a guest that dies. A resize has happened already; its new size is written by saveLoop, and a file that cannot
// be written then is a warning.
type Offers struct {
	// Immutable.
	file *offersFile // nil = there is none
	warn func(error)

	// Guarded by mu.
	mu     sync.Mutex
	byName map[string]*memory
	bytes  int    // of names
	clock  uint64 // counts uses
	stale  bool   // the file misses something
	saving bool   // saveLoop runs

	// Safe from anywhere.
	savers sync.WaitGroup
}

// memory is an offer and when it was made last.
type memory struct {
	// Guarded by Offers.mu.
	offer
	used uint64
}

// offer is what clients may have seen under a name.
type offer struct {
	size     uint64
	flags    TransmissionFlags
	minBlock uint32
}

// remembered is the part of an offer that counts.
func (o offer) remembered() offer {
	return offer{o.size, o.flags & (guarded | FlagReadOnly), max(o.minBlock, 1)}
}

// Bounds of what is remembered; beyond them the name that has not been offered for the longest time is forgotten.
const (
	// offersMax is more exports than a host serves, over some months of names that are used once.
	offersMax = 4096
	// offersNamesMax is what their names may take together, in bytes.
	offersNamesMax = 1 << 20
)

// NewOffers returns an empty memory that ends with the process.
func NewOffers() *Offers { return &Offers{byName: map[string]*memory{}, warn: func(error) {}} }

// add enters what is offered under a name from now on. Less than before is refused unless allowLess. Who does not offer it after all calls undo.
func (o *Offers) add(name string, now offer, allowLess bool) (undo func(), err error) {
	now = now.remembered()
	o.mu.Lock()
	before := o.byName[name]
	if before != nil && !allowLess {
		if err := before.allows(now); err != nil {
			o.mu.Unlock()
			return nil, err
		}
	}
	if before != nil && before.offer == now {
		o.clock++
		before.used = o.clock
		o.mu.Unlock()
		return func() {}, nil
	}
	o.put(name, now)
	o.mu.Unlock()
	undo = func() { o.putBack(name, now, before) }
	if err := o.save(); err != nil {
		undo()
		return nil, fmt.Errorf("what it offers cannot be remembered: %w", err)
	}
	return undo, nil
}

// put makes now what is remembered of a name. o.mu is held.
func (o *Offers) put(name string, now offer) {
	if o.byName[name] == nil {
		o.bytes += len(name)
	}
	o.clock++
	o.stale = true
	o.byName[name] = &memory{now, o.clock}
	if o.fits() {
		return
	}
	for _, oldest := range o.inOrder() {
		if o.forget(oldest); o.fits() {
			return
		}
	}
}

// fits reports whether no more is remembered than may be; one name always may. o.mu is held.
func (o *Offers) fits() bool {
	return len(o.byName) <= offersMax && (o.bytes <= offersNamesMax || len(o.byName) == 1)
}

// forget drops a name. o.mu is held.
func (o *Offers) forget(name string) {
	delete(o.byName, name)
	o.bytes -= len(name)
}

// putBack undoes the put of now. The file follows when it is written next.
func (o *Offers) putBack(name string, now offer, before *memory) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m := o.byName[name]; m == nil || m.offer != now {
		return
	}
	if before == nil {
		o.forget(name)
	} else {
		o.byName[name] = before
	}
	o.saveLater()
}

// resize notes that a name has another size: who resized it wanted so.
func (o *Offers) resize(name string, size uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if before := o.byName[name]; before != nil {
		o.put(name, offer{size, before.flags, before.minBlock})
		o.saveLater()
	}
}

// inOrder lists the names, the one first that has not been offered for the longest time. o.mu is held.
func (o *Offers) inOrder() []string {
	names := make([]string, 0, len(o.byName))
	for name := range o.byName {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(o.byName[a].used, o.byName[b].used) })
	return names
}

// guarded are the abilities that a client which reconnects goes on to use.
const guarded = FlagSendFlush | FlagSendFUA | FlagSendTrim | FlagSendWriteZeroes | FlagSendFastZero | FlagSendCache | FlagSendDF

// lessError says why a client that has seen one offer cannot go on with another.
type lessError struct{ why string }

func (l *lessError) Error() string { return l.why }

func less(format string, args ...any) error { return &lessError{fmt.Sprintf(format, args...)} }

// allows reports why a client that has seen o cannot go on with now.
func (o offer) allows(now offer) error {
	if now.size < o.size {
		return less("it had %d bytes and would come back with %d", o.size, now.size)
	}
	if now.minBlock > o.minBlock {
		return less("its minimum block had %d bytes and would come back with %d", o.minBlock, now.minBlock)
	}
	return o.allowsFlags(now)
}

// allowsFlags is allows as far as abilities go.
func (o offer) allowsFlags(now offer) error {
	if now.flags&FlagReadOnly != 0 && o.flags&FlagReadOnly == 0 {
		return less("it was writable and would come back read-only")
	}
	if lost := o.flags &^ now.flags & guarded; lost != 0 {
		return less("it would come back without %v", lost)
	}
	return nil
}
