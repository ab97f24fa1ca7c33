package nbd

import (
	"fmt"
	"sync"
)

// Offers remembers what clients have seen under each name of an export, for longer than the export lasts, and than a Server if the next one is given
// the same Offers. QEMU aborts, and its guest with it, when it reconnects to less.
type Offers struct {
	// Guarded by mu.
	mu     sync.Mutex
	byName map[string]offer
}

// offer is what clients may have seen under a name.
type offer struct {
	size  uint64
	flags TransmissionFlags
}

// NewOffers returns an empty memory.
func NewOffers() *Offers { return &Offers{byName: map[string]offer{}} }

// add enters what is offered under a name from now on. Less than before is refused unless allowLess.
func (o *Offers) add(name string, now offer, allowLess bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if before, seen := o.byName[name]; seen && !allowLess {
		if err := before.allows(now); err != nil {
			return err
		}
	}
	o.byName[name] = now
	return nil
}

// resize notes that a name has another size: who resized it wanted so.
func (o *Offers) resize(name string, size uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if before, seen := o.byName[name]; seen {
		o.byName[name] = offer{size, before.flags}
	}
}

// guarded are the abilities that a client which reconnects goes on to use.
const guarded = FlagSendFlush | FlagSendFUA | FlagSendTrim | FlagSendWriteZeroes | FlagSendFastZero | FlagSendCache | FlagSendDF

// allows reports why a client that has seen o cannot go on with now.
func (o offer) allows(now offer) error {
	if now.size < o.size {
		return fmt.Errorf("it had %d bytes and would come back with %d", o.size, now.size)
	}
	if now.flags&FlagReadOnly != 0 && o.flags&FlagReadOnly == 0 {
		return fmt.Errorf("it was writable and would come back read-only")
	}
	if lost := o.flags &^ now.flags & guarded; lost != 0 {
		return fmt.Errorf("it would come back without %v", lost)
	}
	return nil
}
