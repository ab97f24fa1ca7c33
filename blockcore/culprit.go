package blockcore

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// DrainError says that a drain did not come to its end in time, and whom it waited for.
type DrainError struct {
	Why      string
	After    time.Duration
	Culprits []Culprit

	cause error
}

// Culprit is something that a drain waits for: a request, or what is counted without one.
type Culprit struct {
	Request
	// What is set where there is no request to name: "background work", "busy owner", "loop that does not answer".
	What string
}

// String is one line for people.
func (c Culprit) String() string {
	if c.What == "" {
		return c.Request.String()
	}
	return c.What
}

// namedMax is how many culprits an error names in words; the others are counted.
const namedMax = 3

func (e *DrainError) Error() string {
	var names []string
	for _, c := range e.Culprits[:min(namedMax, len(e.Culprits))] {
		names = append(names, c.String())
	}
	if more := len(e.Culprits) - namedMax; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	if len(names) == 0 {
		names = append(names, "nothing that is still there")
	}
	return fmt.Sprintf("drain for %s gave up after %v, waiting for %s: %v", e.Why, e.After.Round(time.Millisecond), strings.Join(names, ", "), e.cause)
}

// Unwrap returns why the wait ended.
func (e *DrainError) Unwrap() error { return e.cause }

// loopAnswerMax is how long a loop may take to say what is in flight on it.
const loopAnswerMax = time.Second

// WaitsFor lists what d waits for, with nobody's stack: flushes ahead while there are any, a loop that is to begin it and does not answer, then what
// is in flight, and nothing when it is still, but a flush that its holder waits for in it. Not on a loop.
func (g *Graph) WaitsFor(d *Drained) []Culprit {
	g.mu.Lock()
	flushing, waits := d.ahead || d.settled && !d.ended || d.asked && !d.began, d.began && !d.settled && !d.ended
	nodes, roots := d.nodes, []*Root(nil)
	if d.began {
		nodes, roots = d.coverage()
	}
	nodes = slices.Clone(nodes)
	g.mu.Unlock()
	if !flushing && !waits {
		return nil
	}
	var found []Culprit
	for _, q := range g.requests(roots, nodes, &found) {
		if !q.Held && (waits || q.By != "" && q.Op == opFlush) {
			found = append(found, Culprit{Request: q})
		}
	}
	if !waits {
		return found
	}
	unaccounted := g.unaccounted(nodes, found)
	for _, n := range nodes {
		if left := unaccounted[n]; left > 0 {
			found = append(found, Culprit{What: fmt.Sprintf("%d operations in node %s that no request accounts for (background work)", left, n.name)})
		}
	}
	for _, r := range roots {
		if r.owner != nil && r.owner.Busy() {
			found = append(found, Culprit{What: fmt.Sprintf("owner %s, which is busy", r.name)})
		}
	}
	return found
}

// unaccounted counts what is in flight in nodes besides some requests. A request counts in each node that it has come through.
func (g *Graph) unaccounted(nodes []*Node, requests []Culprit) map[*Node]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	counts := map[*Node]int64{}
	for _, n := range nodes {
		left := n.InFlight()
		for _, q := range requests {
			if q.node != nil && reaches(n, q.node) && (q.by == nil || reaches(q.by, n)) {
				left--
			}
		}
		if left > 0 {
			counts[n] = left
		}
	}
	return counts
}

// busyList is of whom one loop is asked what is in flight.
type busyList struct {
	loop  *AioContext
	roots []*Root
	nodes []*Node
}

// byLoop sorts roots and nodes by their loops, which are in the order of their first ones.
func byLoop(roots []*Root, nodes []*Node) []*busyList {
	var all []*busyList
	on := func(c *AioContext) *busyList {
		for _, l := range all {
			if l.loop == c {
				return l
			}
		}
		all = append(all, &busyList{loop: c})
		return all[len(all)-1]
	}
	for _, r := range roots {
		l := on(r.Context())
		l.roots = append(l.roots, r)
	}
	for _, n := range nodes {
		l := on(n.Context())
		l.nodes = append(l.nodes, n)
	}
	return all
}

// requests lists what is in flight at those of l that have not moved elsewhere, with nothing in flight. On the loop.
func (l *busyList) requests() []Request {
	var list []Request
	now := l.loop.clock.now()
	for _, r := range l.roots {
		if r.Context() == l.loop {
			list = append(list, r.requests(now)...)
		}
	}
	for _, n := range l.nodes {
		if n.Context() == l.loop {
			list = append(list, n.requests(now)...)
		}
	}
	return list
}

// requests lists what is in flight and held at roots, and what nodes do by themselves. A loop that does not answer is a culprit itself.
func (g *Graph) requests(roots []*Root, nodes []*Node, silent *[]Culprit) []Request {
	var all []Request
	for _, l := range byLoop(roots, nodes) {
		answer := make(chan []Request, 1)
		if !l.loop.Post(func() { answer <- l.requests() }) {
			continue
		}
		select {
		case list := <-answer:
			all = append(all, list...)
		case <-time.After(loopAnswerMax):
			*silent = append(*silent, Culprit{What: fmt.Sprintf("event loop %s, which does not answer", l.loop.name)})
		}
	}
	return all
}

// Requests lists all requests that are in flight or held back, and what nodes do by themselves, with nobody's stack. Not on a loop.
func (g *Graph) Requests() []Request {
	var silent []Culprit
	return g.requests(g.Roots(), g.Nodes(), &silent)
}

// stackBytesMax bounds the stacks of all goroutines that are searched.
const stackBytesMax = 8 << 20

// stacks finds the stack of each culprit's Task. A Task is a goroutine to the runtime, whose outermost function of ours
// is (*Task).coroutine with the Task as its receiver: that address stands in the traceback.
func stacks(found []Culprit) []Culprit {
	if len(found) == 0 {
		return nil
	}
	text := make([]byte, 64<<10)
	for {
		n := runtime.Stack(text, true)
		if n < len(text) || len(text) >= stackBytesMax {
			text = text[:n]
			break
		}
		text = make([]byte, 2*len(text))
	}
	blocks := strings.Split(string(text), "\n\n")
	for i := range found {
		if found[i].task == nil {
			continue
		}
		mark := fmt.Sprintf("(*Task).coroutine(%p", found[i].task)
		for _, block := range blocks {
			if strings.Contains(block, mark) {
				found[i].Stack = block
				break
			}
		}
	}
	return found
}
