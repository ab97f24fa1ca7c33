package nbd

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pump gives a TLS connection a socket that carries its bytes in clear, so that there is one transmission engine for
// all connections. Two goroutines move the bytes between a socket pair and the TLS connection; each ends
// when its source does or its sink refuses, and takes the other one along.
type pump struct {
	// Immutable.
	secure *tls.Conn
	clear  *net.UnixConn // our end of the pair; the engine has the other one

	// Safe from anywhere.
	loops sync.WaitGroup
}

// newPump starts a pump and returns the engine's end of the pair.
func newPump(t *tls.Conn) (*pump, int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("socket pair for TLS: %w", err)
	}
	f := os.NewFile(uintptr(pair[1]), "tls")
	clear, err := net.FileConn(f)
	f.Close()
	if err != nil {
		unix.Close(pair[0])
		return nil, 0, fmt.Errorf("socket pair for TLS: %w", err)
	}
	p := &pump{secure: t, clear: clear.(*net.UnixConn)}
	p.loops.Add(2)
	go p.decryptLoop()
	go p.encryptLoop()
	return p, pair[0], nil
}

// decryptLoop moves what the client sends to the engine. A client that closes, politely or not, is an end
// of file.
func (p *pump) decryptLoop() {
	defer p.loops.Done()
	_, err := copyBytes(p.clear, p.secure)
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
	copyBytes(p.secure, p.clear)
	p.secure.Close()
	p.clear.Close()
}

// finish bounds the time that the client has to take what the engine, which has closed its end, has
// left in the pump.
func (p *pump) finish(grace time.Duration) {
	_ = p.secure.NetConn().SetWriteDeadline(time.Now().Add(grace))
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
