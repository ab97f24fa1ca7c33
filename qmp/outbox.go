package qmp

import "sync"

// message is a line to a client.
type message struct {
	text  []byte
	event bool
}

// outbox is what a client has yet to read, in the order in which it happened. Responses wait for room, so that a client
// that does not read is not served on; events never wait, and the oldest of them make room for new ones. Where events
// were dropped, the client finds one that says how many.
type outbox struct {
	// Immutable.
	style style

	mu sync.Mutex
	// Guarded by mu.
	changed       sync.Cond
	messages      []message
	responseBytes int
	eventBytes    int
	events        int
	lost          uint64 // since the last message about it left
	lostEver      uint64
	ended         bool // nothing is added any more, what is there still leaves
	broken        bool // nothing leaves any more
}

func newOutbox(s style) *outbox {
	o := &outbox{style: s}
	o.changed.L = &o.mu
	return o
}

// respond waits until there is room, or until nothing is to be waited for any more.
func (o *outbox) respond(n node) {
	text := o.style.appendMessage(nil, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.responseBytes > outputBytesMax && !o.ended && !o.broken {
		o.changed.Wait()
	}
	if o.broken {
		return
	}
	o.messages = append(o.messages, message{text: text})
	o.responseBytes += len(text)
	o.changed.Broadcast()
}

// tell adds an event and never waits.
func (o *outbox) tell(n node) {
	text := o.style.appendMessage(nil, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken || o.ended {
		return
	}
	o.messages = append(o.messages, message{text: text, event: true})
	o.events++
	o.eventBytes += len(text)
	for o.events > eventsWaitingMax || o.eventBytes > eventBytesMax && o.events > 1 {
		o.dropOldestEvent()
	}
	o.changed.Broadcast()
}

// dropOldestEvent expects o.mu to be held and an event to be there.
func (o *outbox) dropOldestEvent() {
	for i, m := range o.messages {
		if m.event {
			o.messages = append(o.messages[:i], o.messages[i+1:]...)
			o.events--
			o.eventBytes -= len(m.text)
			o.lost++
			o.lostEver++
			return
		}
	}
}

// take is the next batch of lines; it waits for one, and returns nothing when there will be none.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.messages) == 0 && !o.ended && !o.broken {
		o.changed.Wait()
	}
	if o.broken {
		return nil
	}
	var text []byte
	n := 0
	for ; n < len(o.messages) && len(text) < keepBytes; n++ {
		text = append(text, o.pass(o.messages[n])...)
	}
	o.messages = append(o.messages[:0], o.messages[n:]...)
	o.changed.Broadcast()
	return text
}

// pass is the text of a message that leaves, behind the note about lost events if it is the first since.
func (o *outbox) pass(m message) []byte {
	if !m.event {
		o.responseBytes -= len(m.text)
		return m.text
	}
	o.events--
	o.eventBytes -= len(m.text)
	if o.lost == 0 {
		return m.text
	}
	note := o.style.appendMessage(nil, lostEvents(o.lost))
	o.lost = 0
	return append(note, m.text...)
}

// end lets what is there leave and takes nothing more from tell; respond no longer waits.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.changed.Broadcast()
}

// fail throws everything away: the client takes nothing any more.
func (o *outbox) fail() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = true
	o.messages = nil
	o.changed.Broadcast()
}

func (o *outbox) lostCount() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lostEver
}
