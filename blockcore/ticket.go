package blockcore

import (
	"fmt"
	"time"
)

// Ticket is one admitted request of an owner, from Root.Begin to Root.End. It says who it is, for those who
// wait for its end. The owner embeds one in each of its requests and may use it again and again.
//
// Analogous to QEMU's BdrvTrackedRequest.
type Ticket struct {
	// Op names the operation, as "read". Set before Begin.
	Op string
	// Range is what it is about. Set before Begin.
	Range Range
	// Limited says that the owner's throttle group, if it has one, limits the request, in this Direction and by the length
	// of Range. Set before Begin.
	Limited   bool
	Direction ThrottleDirection
	// Changes says that the request changes what is in Range, and Orphaned that its client has gone. Set before Begin.
	Changes, Orphaned bool
	// Client tells who asked, when somebody wants to know. Set before Begin; may be nil.
	Client fmt.Stringer

	// Owned by the context.
	root       *Root
	task       *Task
	number     uint64        // of its coming
	since      time.Duration // by the context's clock
	held       bool          // in Begin, and not counted in
	away       bool          // in Begin, and the Root has moved to another context
	unwanted   bool          // Root.Cancel was called for it
	orphan     bool          // it changes something, and its client has gone
	followers  WaitQueue     // of an orphan: requests that wait for it
	behind     *Ticket       // in Begin, and waits for that orphan: it is in no driver; nil = for none
	dismissed  bool          // Root.Dismiss was called for it
	prev, next *Ticket
}

// leave has the Task go on without its ticket.
func (k *Ticket) leave(t *Task) {
	k.forgotten(t)
	t.ticket = nil
	k.held, k.away, k.dismissed, k.task, k.root = false, false, false, nil, nil
}

// ticketList is the requests of one Root, in the order of their coming. Owned by the context.
type ticketList struct {
	first, last *Ticket
	came        uint64 // so many
}

func (l *ticketList) add(k *Ticket) {
	l.came++
	k.number = l.came
	k.prev, k.next = l.last, nil
	if l.last == nil {
		l.first = k
	} else {
		l.last.next = k
	}
	l.last = k
}

func (l *ticketList) remove(k *Ticket) {
	if k.prev == nil {
		l.first = k.next
	} else {
		k.prev.next = k.next
	}
	if k.next == nil {
		l.last = k.prev
	} else {
		k.next.prev = k.prev
	}
	k.prev, k.next = nil, nil
}

// Request describes a request in flight.
type Request struct {
	Root   string // the owner; "" = a node does it by itself
	By     string // that node
	Node   string // in whose driver it is now; "" = in none
	Op     string
	Range  Range
	Age    time.Duration
	Client string
	Held   bool   // held back, not in flight
	Stack  string // of its Task; "" unless asked for
	task   *Task
	node   *Node
	by     *Node
}

// String is one line for people.
func (q Request) String() string {
	where := ""
	if q.Range != (Range{}) {
		where = " " + q.Range.String()
	}
	if q.Node != "" {
		where += " in node " + q.Node
	}
	who := ""
	if q.Client != "" {
		who = " of " + q.Client
	}
	if q.By != "" && q.By != q.Node {
		who += " for node " + q.By
	}
	return fmt.Sprintf("%s%s%s for %v", q.Op, where, who, q.Age.Round(time.Millisecond))
}

// describe lists the requests of l. On the loop.
func (l *ticketList) describe(now time.Duration) []Request {
	var all []Request
	for k := l.first; k != nil; k = k.next {
		q := Request{Op: k.Op, Range: k.Range, Age: now - k.since, Held: k.held, task: k.task}
		if k.task != nil && k.task.node != nil {
			q.node, q.Node = k.task.node, k.task.node.name
		}
		if k.Client != nil {
			q.Client = k.Client.String()
		}
		all = append(all, q)
	}
	return all
}

// requests lists what is in flight and held at r. On the loop.
func (r *Root) requests(now time.Duration) []Request {
	all := r.tickets.describe(now)
	for i := range all {
		all[i].Root = r.name
	}
	return all
}

// requests lists what n does for no request. On the loop.
func (n *Node) requests(now time.Duration) []Request {
	all := n.errands.describe(now)
	for i := range all {
		q := &all[i]
		q.By, q.by = n.name, n
		if q.node == nil { // not begun
			q.Node, q.node = n.name, n
		}
	}
	return all
}
