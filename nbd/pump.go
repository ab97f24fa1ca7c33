package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pump gives a TLS connection a socket that carries its bytes in clear, so that there is one transmission engine for
// all connections. Two goroutines move the bytes between a socket pair and the TLS connection; each ends
// when its source does, and takes the other one along.
type pump struct {
	// Immutable.
	secure *tls.Conn
	clear  *net.UnixConn // our end of the pair; the engine has the other one

	// Safe from anywhere.
	loops     sync.WaitGroup
	farewell  atomic.Int64  // how long to wait for the client to close too, a time.Duration; set by finish
	decrypted chan struct{} // closed at the end of decryptLoop
}

// newPump starts a pump between a TLS connection and our end of a pair.
func newPump(t *tls.Conn, clear *net.UnixConn) *pump {
	p := &pump{secure: t, clear: clear, decrypted: make(chan struct{})}
	p.loops.Add(2)
	go p.decryptLoop()
	go p.encryptLoop()
	return p
}

// decryptLoop moves what the client sends to the engine. A client that closes, politely or not, is an end
// of file. What comes when the engine takes nothing any more is dropped: its last replies may still be on their way.
func (p *pump) decryptLoop() {
	defer p.loops.Done()
	defer close(p.decrypted)
	_, err := copyBytes(&untilRefused{to: p.clear}, p.secure)
	if err != nil {
		// What the engine still has to say would reach nobody; it finds that out by our end.
		p.secure.NetConn().Close()
		p.clear.Close()
	}
	p.clear.CloseWrite()
}

// encryptLoop moves replies to the client; when the engine has closed its end it says goodbye and closes
// the connection.
func (p *pump) encryptLoop() {
	defer p.loops.Done()
	if _, err := copyBytes(p.secure, p.clear); err == nil || errors.Is(err, unix.ECONNRESET) {
		p.part()
	}
	p.secure.Close()
	p.clear.Close()
}

// part says the end and waits for the client's, if finish wants that.
func (p *pump) part() {
	farewell := time.Duration(p.farewell.Load())
	if farewell == 0 || p.settled() || p.secure.CloseWrite() != nil {
		return
	}
	if half, ok := p.secure.NetConn().(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = p.secure.SetReadDeadline(time.Now().Add(farewell))
	<-p.decrypted
}

// settled reports that the client has acknowledged all that it was sent, and nothing of it is unread.
func (p *pump) settled() bool {
	is := false
	err := p.control(func(fd uintptr) { is = settled(int(fd)) })
	return is && err == nil
}

// finish is told by the engine that it closes its end. It bounds the time that the client has to take what is left in the pump,
// and then to close.
func (p *pump) finish(linger, farewell time.Duration) {
	p.farewell.Store(int64(farewell))
	if linger == 0 {
		_ = p.secure.NetConn().SetDeadline(time.Now())
		return
	}
	_ = p.secure.NetConn().SetWriteDeadline(time.Now().Add(linger))
}

// untilRefused writes until the first error, and from then on to nowhere. It is for one goroutine.
type untilRefused struct {
	to      io.Writer
	refused bool
}

func (u *untilRefused) Write(b []byte) (int, error) {
	if !u.refused {
		_, err := u.to.Write(b)
		u.refused = err != nil
	}
	return len(b), nil
}

// control runs fn with the descriptor of the socket that carries TLS.
func (p *pump) control(fn func(fd uintptr)) error {
	sc, ok := p.secure.NetConn().(syscall.Conn)
	if !ok {
		return fmt.Errorf("connection of type %T has no file descriptor", p.secure.NetConn())
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(fn)
}

// wait waits for the end of both goroutines.
func (p *pump) wait() { p.loops.Wait() }

// pumpBuffer is the largest TLS record, in bytes.
const pumpBuffer = 16 << 10

// copyBytes is io.Copy with a buffer of its own, without the shortcuts that would go around TLS.
func copyBytes(to io.Writer, from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, pumpBuffer))
}
