package nbd

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Some clients go without a sign that a loop would see by itself, and are looked for now and then:
//
//   - A connection whose next request waits for the end of a drained section is not read. That its socket is closed or has failed
//     is found without taking a byte. A client that has closed its own direction only may wait for replies, and stays.
//   - A host that has died while replies were on their way to it: the kernel sends those again for a quarter of an hour before it
//     gives up, and keepalive is silent as long. A client that is alive and does not read has acknowledged all that was sent.

// parkedEvery is how often clients are looked for whose requests are parked: a seat is free, and a request of a client that has
// given it up is dropped, within this time.
const parkedEvery = 250 * time.Millisecond

// lookLater has the connections looked at after a while, if there are any. On the loop.
func (e *Export) lookLater() {
	if e.looking != nil || len(e.connections()) == 0 || e.isBetween() {
		return
	}
	after := e.server.limits.Silence / 4
	if e.still {
		after = min(after, parkedEvery)
	}
	e.looking = e.ctx.Load().After(after, e.look)
}

// lookSooner is for when a section begins. On the loop.
func (e *Export) lookSooner() {
	e.lookNoMore()
	e.lookLater()
}

func (e *Export) lookNoMore() {
	if e.looking != nil {
		e.looking.Stop()
		e.looking = nil
	}
}

// look ends the connections whose clients are gone.
func (e *Export) look() {
	e.looking = nil
	for _, c := range e.connections() {
		if c.watcher == nil {
			continue
		}
		if e.still && c.blocked {
			c.checkHangUp()
		}
		if !c.closed && c.silent() >= e.server.limits.Silence {
			c.gone(CauseReset, fmt.Errorf("replies are not acknowledged: %w", unix.ETIMEDOUT))
		}
	}
	e.lookLater()
}

// checkHangUp ends the connection if its socket is closed in both directions, or has failed.
func (c *Conn) checkHangUp() {
	hungUp, err := hangUp(c.fd)
	if !hungUp && c.pump != nil { // which may be waiting for the engine to go on
		_ = c.pump.control(func(fd uintptr) { hungUp, err = hangUp(int(fd)) })
	}
	switch {
	case !hungUp:
	case err != nil:
		c.gone(CauseReset, fmt.Errorf("while requests were held back: %w", err))
	default:
		c.gone(CauseEOF, errors.New("closed while requests were held back"))
	}
}

// hangUp reports whether nobody is at the other end of a socket any more, and the error that says why.
func hangUp(fd int) (bool, error) {
	p := [1]unix.PollFd{{Fd: int32(fd)}}
	if n, err := unix.Poll(p[:], 0); n == 0 || err != nil {
		return false, nil
	}
	if errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
		return true, unix.Errno(errno)
	}
	return true, nil
}

// gone ends a connection that reaches nobody: what has not begun is dropped.
func (c *Conn) gone(cause Cause, err error) {
	c.endInput(cause, err)
	c.lose(nil)
	c.watcher.Cool()
	c.maybeClose()
}

// silent is for how long the client's host has acknowledged nothing although it had to. It is 0 where there is no TCP.
func (c *Conn) silent() time.Duration {
	info, err := c.tcpInfo()
	if err != nil || info.Unacked == 0 {
		return 0
	}
	return time.Duration(info.Last_ack_recv) * time.Millisecond
}

func (c *Conn) tcpInfo() (info *unix.TCPInfo, err error) {
	ask := func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }
	if c.pump == nil {
		ask(uintptr(c.fd))
		return info, err
	}
	if errControl := c.pump.control(ask); errControl != nil {
		return nil, errControl
	}
	return info, err
}
