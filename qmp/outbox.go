package qmp

import (
	"sync"
	"time"
)

// message is a line to a client.
type message struct {
	at   uint64 // its place in the order
	text []byte
}

// line is messages of one kind that wait.
type line struct {
	messages []message
	bytes    int
}

func (l *line) add(m message) {
	l.messages = append(l.messages, m)
	l.bytes += len(m.text)
}

func (l *line) takeFirst() message {
	m := l.messages[0]
	l.messages[0] = message{}
	l.messages = l.messages[1:]
	l.bytes -= len(m.text)
	return m
}

// before is true if the first of l happened before that of other.
func (l *line) before(other *line) bool {
	return len(l.messages) > 0 && (len(other.messages) == 0 || l.messages[0].at < other.messages[0].at)
}

// outbox is what a client has yet to read, in the order in which it happened. Responses wait for room, so that a client
// that does not read is not served on; events never wait, and the oldest of them make room for new ones. Where events
// were dropped, the client finds one that says how many.
type outbox struct {
	// Immutable.
	style style

	mu sync.Mutex
	// Guarded by mu.
	changed   sync.Cond
	responses line
	events    line
	added     uint64 // messages ever
	lost      uint64 // events since the last message about it left
	lostEver  uint64
	writing   bool // what was taken last is on its way
	hurried   bool // nobody waits for room any more, and events are of no interest
	ended     bool // nothing is added any more, what is there still leaves
	broken    bool // nothing leaves any more
}

func newOutbox(s style) *outbox {
	o := &outbox{style: s}
	o.changed.L = &o.mu
	return o
}

// respond waits until there is room or until there is no time.
func (o *outbox) respond(n node) {
	text := o.style.appendMessage(nil, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.responses.bytes > outputBytesMax && !o.hurried && !o.broken {
		o.changed.Wait()
	}
	if o.broken {
		return
	}
	o.added++
	o.responses.add(message{o.added, text})
	o.changed.Broadcast()
}

// tell adds an event and never waits.
func (o *outbox) tell(n node) {
	text := o.style.appendMessage(nil, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken || o.hurried {
		return
	}
	o.added++
	o.events.add(message{o.added, text})
	for len(o.events.messages) > eventsWaitingMax || o.events.bytes > eventBytesMax && len(o.events.messages) > 1 {
		o.events.takeFirst()
		o.lost++
		o.lostEver++
	}
	o.changed.Broadcast()
}

// take is the next batch of lines; it waits for one, and returns nothing when there will be none.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = false
	o.changed.Broadcast()
	for o.empty() && !o.ended && !o.broken {
		o.changed.Wait()
	}
	if o.broken {
		return nil
	}
	var text []byte
	for len(text) < keepBytes && !o.empty() {
		text = append(text, o.next()...)
	}
	o.writing = len(text) > 0
	o.changed.Broadcast()
	return text
}

// awaitLeft waits until all that is there has left, or cannot, and no longer than most.
func (o *outbox) awaitLeft(most time.Duration) {
	over := false // guarded by o.mu
	timer := time.AfterFunc(most, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		over = true
		o.changed.Broadcast()
	})
	defer timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for (o.writing || !o.empty()) && !o.broken && !over {
		o.changed.Wait()
	}
}

func (o *outbox) empty() bool { return len(o.responses.messages)+len(o.events.messages) == 0 }

// next is the text that leaves next; the note about lost events stands in their place, before the oldest one left.
func (o *outbox) next() []byte {
	switch {
	case o.responses.before(&o.events):
		return o.responses.takeFirst().text
	case o.lost > 0:
		note := o.style.appendMessage(nil, lostEvents(o.lost))
		o.lost = 0
		return note
	}
	return o.events.takeFirst().text
}

// hurry has the answers of the commands that run be added without waiting, and no further events.
func (o *outbox) hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hurried = true
	o.changed.Broadcast()
}

// end is called behind the last answer: what is there still leaves.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hurried, o.ended = true, true
	o.changed.Broadcast()
}

// fail throws everything away: the client takes nothing any more.
func (o *outbox) fail() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = true
	o.responses, o.events = line{}, line{}
	o.changed.Broadcast()
}

func (o *outbox) lostCount() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lostEver
}
