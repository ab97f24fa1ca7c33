package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Client is the other end of a monitor. Its methods can be called from anywhere.
type Client struct {
	// Immutable.
	conn     net.Conn
	greeting Greeting
	events   chan Event

	// Safe from anywhere.
	writing chan struct{} // holds one token: whoever has it may write
	done    chan struct{} // closed when readLoop has ended

	mu sync.Mutex
	// Guarded by mu.
	waiting map[uint64]chan<- reply
	lastID  uint64
	err     error // why the connection has ended
	lost    uint64
}

// Greeting is what a server says about itself.
type Greeting struct {
	Version      Version  `json:"version"`
	Capabilities []string `json:"capabilities"`
}

// reply is any message from the server.
type reply struct {
	QMP       *Greeting       `json:"QMP"`
	Return    json.RawMessage `json:"return"`
	Error     *replyError     `json:"error"`
	ID        *uint64         `json:"id"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

type replyError struct {
	Class  Class           `json:"class"`
	Desc   string          `json:"desc"`
	Detail json.RawMessage `json:"x-detail"`
}

func (e *replyError) asError() error {
	err := &Error{e.Class, e.Desc}
	if e.Detail == nil {
		return err
	}
	return &Detailed{err, e.Detail}
}

// ErrClientClosed is what commands of a client end with that has been closed.
var ErrClientClosed = errors.New("qmp: client closed")

// Dial connects to the unix socket of a server and negotiates.
func Dial(ctx context.Context, path string) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, conn)
}

// NewClient negotiates over a connection, which it closes on an error.
func NewClient(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{
		conn:    conn,
		events:  make(chan Event, clientEventsMax),
		writing: make(chan struct{}, 1),
		done:    make(chan struct{}),
		waiting: map[uint64]chan<- reply{},
	}
	c.writing <- struct{}{}
	input := newMessages(conn)
	if err := c.greet(ctx, input); err != nil {
		conn.Close()
		return nil, err
	}
	go c.readLoop(input)
	if err := c.Do(ctx, negotiate, c.capabilities(), nil); err != nil {
		c.Close()
		return nil, fmt.Errorf("negotiate with the monitor: %w", err)
	}
	return c, nil
}

// greet reads the greeting; the end of the context interrupts it.
func (c *Client) greet(ctx context.Context, input *messages) error {
	stop := context.AfterFunc(ctx, c.interrupt)
	first, err := input.next()
	switch {
	case !stop():
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("read the greeting of the monitor: %w", err)
	case first.Error != nil:
		return first.Error.asError()
	case first.QMP == nil:
		return errors.New("the greeting of the monitor is none")
	}
	c.greeting = *first.QMP
	return nil
}

// longAgo is a deadline that interrupts.
var longAgo = time.Unix(1, 0)

func (c *Client) interrupt() { c.conn.SetReadDeadline(longAgo) }

// capabilities are those offered that we know.
func (c *Client) capabilities() any {
	for _, offered := range c.greeting.Capabilities {
		if offered == string(capabilityOOB) {
			return map[string][]string{"enable": {offered}}
		}
	}
	return nil
}

// Greeting is what the server has said about itself.
func (c *Client) Greeting() Greeting { return c.greeting }

// Events delivers what happens in the server. It is closed when the connection ends. Of events that nobody takes the
// newest are kept.
func (c *Client) Events() <-chan Event { return c.events }

// LostEvents is how many events nobody took in time.
func (c *Client) LostEvents() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// Do has the server execute a command. args and result are what encoding/json makes of them; either may be nil.
// What the server answers as an error is an *Error, or a *Detailed with one. When the context ends first, the command may have been executed or not.
func (c *Client) Do(ctx context.Context, command string, args, result any) error {
	return c.do(ctx, "execute", command, args, result)
}

// DoOOB has the server execute a command out of band: beside the one that runs and before those that wait.
func (c *Client) DoOOB(ctx context.Context, command string, args, result any) error {
	return c.do(ctx, "exec-oob", command, args, result)
}

func (c *Client) do(ctx context.Context, verb, command string, args, result any) error {
	id, answer, err := c.expect()
	if err != nil {
		return err
	}
	defer c.forget(id)
	message := map[string]any{verb: command, "id": id}
	if args != nil {
		message["arguments"] = args
	}
	if err := c.send(ctx, message); err != nil {
		return err
	}
	select {
	case r := <-answer:
		return r.into(result)
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
	}
	select { // the answer may have been the last thing that came
	case r := <-answer:
		return r.into(result)
	default:
		return c.failure()
	}
}

func (r reply) into(result any) error {
	switch {
	case r.Error != nil:
		return r.Error.asError()
	case result == nil:
		return nil
	}
	return json.Unmarshal(r.Return, result)
}

// lastWordsMax is how long a server that reads nothing any more may take to end its own direction.
const lastWordsMax = 5 * time.Second

// send writes a whole message or ends the connection, which would be out of step.
func (c *Client) send(ctx context.Context, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	select {
	case <-c.writing:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.failure()
	}
	defer func() { c.writing <- struct{}{} }()
	switch n, err := c.write(ctx, append(text, '\n')); {
	case err == nil:
		return nil
	case ctx.Err() != nil && n == 0: // nothing is out, and the connection in step
		return ctx.Err()
	case hasGone(err): // readLoop finds out, and what the server said before it left
		_ = c.conn.SetReadDeadline(time.Now().Add(lastWordsMax))
		<-c.done
		return c.failure()
	default:
		c.fail(err)
		return c.failure() // what closed the connection under this write comes first
	}
}

// hasGone is true for what tells that the server has closed the connection: the end of what it sends, or what the kernel says
// to who writes then, or reads while the server has left something unread.
func hasGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// write is interrupted by the end of the context, and leaves no deadline behind.
func (c *Client) write(ctx context.Context, text []byte) (int, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.conn.SetWriteDeadline(longAgo)
		close(interrupted)
	})
	n, err := c.conn.Write(text)
	if !stop() {
		<-interrupted
		c.conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}

func (c *Client) expect() (uint64, <-chan reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.lastID++
	answer := make(chan reply, 1)
	c.waiting[c.lastID] = answer
	return c.lastID, answer, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// readLoop hands out what the server sends until the connection ends.
func (c *Client) readLoop(input *messages) {
	defer close(c.done)
	defer close(c.events)
	for {
		r, err := input.next()
		switch {
		case err != nil:
			c.fail(err)
			return
		case r.Error != nil && r.ID == nil: // to something of ours that the server could not even read
			c.fail(&Error{r.Error.Class, r.Error.Desc})
			return
		case r.Event != "":
			c.deliver(r)
		case r.ID != nil:
			c.answer(*r.ID, r)
		}
	}
}

func (c *Client) answer(id uint64, r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer := c.waiting[id]; answer != nil {
		delete(c.waiting, id)
		answer <- r
	}
}

// deliver makes room by dropping the oldest event.
func (c *Client) deliver(r reply) {
	when := time.Unix(r.Timestamp.Seconds, r.Timestamp.Microseconds*int64(time.Microsecond))
	event := Event{Name: r.Event, Time: when, Data: r.Data}
	for {
		select {
		case c.events <- event:
			return
		default:
		}
		select {
		case <-c.events:
			c.mu.Lock()
			c.lost++
			c.mu.Unlock()
		default:
		}
	}
}

// Close ends the connection; commands that wait for an answer fail.
func (c *Client) Close() error {
	c.fail(ErrClientClosed)
	<-c.done
	return nil
}

// fail keeps the first reason.
func (c *Client) fail(err error) {
	if hasGone(err) {
		err = fmt.Errorf("the monitor closed the connection: %w", io.ErrUnexpectedEOF)
	}
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.conn.Close()
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// messages reads what the server sends, none of it larger than replyBytesMax.
type messages struct {
	// Owned by the goroutine that reads.
	decoder *json.Decoder
	source  *io.LimitedReader
}

func newMessages(from io.Reader) *messages {
	source := &io.LimitedReader{R: from, N: replyBytesMax}
	return &messages{decoder: json.NewDecoder(source), source: source}
}

func (m *messages) next() (reply, error) {
	m.source.N = replyBytesMax
	var r reply
	err := m.decoder.Decode(&r)
	if m.source.N <= 0 && err != nil {
		err = fmt.Errorf("a message of the monitor is longer than %d bytes", replyBytesMax)
	}
	return r, err
}
