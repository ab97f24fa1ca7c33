package sim

import "slices"

// A client that goes leaves requests behind. What they change is changed before what comes to the Root later reads or changes it, or not at all. In the model such a write is in doubt until
// what has to come after it begins: by then it has been done, or it never is. So a write that comes after it replaces it, and if a read that comes after it does not find it, no later one
// may. Whether the block layer had it wait is not asked: contents tell.

// follows reports whether q may wait for another request if the client of that one has gone.
func (q *request) follows(o *request) bool {
	return o.number < q.number && o.changes() && o.reach().Overlaps(q.reach())
}

// voyages are moves from one loop to another, and attempts.
type voyages struct {
	number   int // of beginnings and ends
	underWay int
}

func (v *voyages) begin() { v.number, v.underWay = v.number+1, v.underWay+1 }
func (v *voyages) end()   { v.number, v.underWay = v.number+1, v.underWay-1 }

// placed reports that q has not lost its place, as one may have that was held while its Root moved: it begins again.
func (q *request) placed() bool {
	return q.begun || q.came.underWay == 0 && q.came == q.w.voyages
}

// arrive notes that a request comes to its Root.
func (q *request) arrive() {
	o := q.owner
	o.arrivals++
	q.number, q.arrived, q.came, q.mayWait, q.after = o.arrivals, q.w.Tick(), q.w.voyages, false, nil
	o.forget(q)
	for _, other := range o.pending {
		if !other.gone || !q.follows(other) {
			continue
		}
		q.mayWait = true
		if other.placed() {
			q.after = append(q.after, other)
		}
	}
	o.pending = append(o.pending, q)
}

// overtake notes that q begins: what it has to come after has been done by now, if it ever is.
func (q *request) overtake() {
	now := q.w.Tick()
	for _, other := range q.after {
		q.w.Count("came after an orphan")
		if !other.ended {
			other.comesLate(lateness{span{q.first, q.n}, now})
		}
	}
}

// comesLate notes that cells of q should have been done, whether it has begun to change them or not.
func (q *request) comesLate(list ...lateness) {
	if q.note == nil {
		q.late = append(q.late, list...)
		return
	}
	for _, l := range list {
		q.volume.precede(q.note, l.first, l.n, l.by)
	}
}

// dropped checks that a request whose client was thrown out has waited for nothing since, unless it began again then, or a section has held it back.
func (q *request) dropped() {
	w, o := q.w, q.owner
	w.Count("dropped")
	w.Log("%s: %d is dropped", q.client.name, q.number)
	if q.arrived < q.cut && q.cut < w.lastCalm && o.hushes == q.hushed && !q.wasStill {
		w.Fail("%s: request %d was not wanted any more and has waited", q.client.name, q.number)
	}
}

// want notes that the request may end early, or not any more. Drivers then ask under the graph's lock who wants it.
func (q *request) want(wanted bool) {
	if q.unwanted != wanted {
		return
	}
	q.unwanted = !wanted
	if q.unwanted {
		q.w.locks(+1)
	} else {
		q.w.locks(-1)
	}
}

// end notes that the request has ended.
func (q *request) end() {
	q.want(true)
	q.ended = true
	q.owner.forget(q)
}

func (o *owner) forget(q *request) {
	o.pending = slices.DeleteFunc(o.pending, func(other *request) bool { return other == q })
}
