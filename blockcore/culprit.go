package blockcore

import (
	"fmt"
	"runtime"
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

// WaitsFor lists what d waits for, with nobody's stack: nothing when it is still, or has not begun. Not on a loop.
func (g *Graph) WaitsFor(d *Drained) []Culprit {
	g.mu.Lock()
	waits := d.began && !d.settled && !d.ended
	nodes, roots := d.coverage()
	g.mu.Unlock()
	if !waits {
		return nil
	}
	var found []Culprit
	for _, q := range g.requests(roots, &found) {
		if !q.Held {
			found = append(found, Culprit{Request: q})
		}
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
			if q.node != nil && reaches(n, q.node) {
				left--
			}
		}
		if left > 0 {
			counts[n] = left
		}
	}
	return counts
}

// requests lists what is in flight and held at roots. A loop that does not answer is a culprit itself.
func (g *Graph) requests(roots []*Root, silent *[]Culprit) []Request {
	byLoop := map[*AioContext][]*Root{}
	var loops []*AioContext // in the order of roots
	for _, r := range roots {
		c := r.Context()
		if byLoop[c] == nil {
			loops = append(loops, c)
		}
		byLoop[c] = append(byLoop[c], r)
	}
	var all []Request
	for _, c := range loops {
		own := byLoop[c]
		answer := make(chan []Request, 1)
		if !c.Post(func() {
			var list []Request
			now := c.clock.now()
			for _, r := range own {
				if r.Context() != c {
					continue // it has moved meanwhile, with nothing in flight
				}
				list = append(list, r.tickets.describe(r, now)...)
			}
			answer <- list
		}) {
			continue
		}
		select {
		case list := <-answer:
			all = append(all, list...)
		case <-time.After(loopAnswerMax):
			*silent = append(*silent, Culprit{What: fmt.Sprintf("event loop %s, which does not answer", c.name)})
		}
	}
	return all
}

// Requests lists all requests that are in flight or held back, with nobody's stack. Not on a loop.
func (g *Graph) Requests() []Request {
	var silent []Culprit
	return g.requests(g.Roots(), &silent)
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
