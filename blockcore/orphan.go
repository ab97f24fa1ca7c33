package blockcore

import "fmt"

// A client whose connection has broken comes back over another one and writes again what he had no answer to, and then something else to the same place.
// What he had in flight cannot be taken back, and nothing says when it is done: without more it may be done last. Nor may it be done behind the back of who has read what
// was there before, and goes by that. So what comes later and reads or changes the same range waits for it, as long as it is known that its client has gone.
//
// INVARIANT: a request waits only for requests that came before it, so waiting has no cycles.
//
// A request that was held while its Root moved begins again, behind those that have come to the new loop meanwhile. An owner that reads nothing while it is quiesced has none.

// Orphan is told that the client of requests has gone, of which there are so many at most: those that are in flight or held, and change something, are orphans. It looks at the last ones
// first, since there may be a hundred thousand of others. On the loop.
func (r *Root) Orphan(client fmt.Stringer, most int) {
	for k := r.tickets.last; k != nil && most > 0; k = k.prev {
		if k.Client == client {
			k.adopt()
			most--
		}
	}
}

// adopt makes an orphan of a request that changes something.
func (k *Ticket) adopt() {
	if k.Changes && !k.orphan && k.Range.Length > 0 {
		k.orphan = true
		k.root.orphans.add(k)
	}
}

// mourn is the end of an orphan.
func (k *Ticket) mourn() {
	if k.orphan {
		k.orphan = false
		k.root.orphans.remove(k)
		k.followers.WakeAll()
	}
}

// awaitOrphans lets those go first that came before k and change what it reads or changes. Who is not wanted any more does not wait. It waits for the last of them first: where there are
// many for one place, they have as a rule ended when that has, and each of the many that wait looks once.
func (r *Root) awaitOrphans(t *Task, k *Ticket) {
	for !k.unwanted && !k.dismissed && r.orphans.count > 0 {
		if k.behind = r.orphans.last(k); k.behind == nil {
			return
		}
		t.Wait(&k.behind.followers)
		k.behind = nil
	}
}

// reconsider has k look again whether it waits for an orphan.
func (k *Ticket) reconsider() {
	if k.behind != nil {
		k.behind.followers.WakeAll()
	}
}
