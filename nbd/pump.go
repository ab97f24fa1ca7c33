package nbd

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// pump gives a TLS connection a socket that carries its bytes in clear, so that there is one transmission engine for
// all connections. Two goroutines move the bytes between a socket pair and the TLS connection; each ends
// when its source does or its sink refuses.
func pump(t *tls.Conn) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("socket pair for TLS: %w", err)
	}
	f := os.NewFile(uintptr(pair[1]), "tls")
	clear, err := net.FileConn(f)
	f.Close()
	if err != nil {
		unix.Close(pair[0])
		return 0, fmt.Errorf("socket pair for TLS: %w", err)
	}
	go decryptLoop(t, clear.(*net.UnixConn))
	go encryptLoop(t, clear.(*net.UnixConn))
	return pair[0], nil
}

// decryptLoop moves what the client sends to the engine. A client that closes, politely or not, is an end
// of file.
func decryptLoop(t *tls.Conn, clear *net.UnixConn) {
	_, err := copyBytes(clear, t)
	if err != nil {
		// What the engine still has to say would reach nobody.
		t.NetConn().Close()
	}
	clear.CloseWrite()
}

// encryptLoop moves replies to the client; when the engine has closed its end it says goodbye and closes
// the connection.
func encryptLoop(t *tls.Conn, clear *net.UnixConn) {
	copyBytes(t, clear)
	t.Close()
	clear.Close()
}

// pumpBuffer is the largest TLS record, in bytes.
const pumpBuffer = 16 << 10

// copyBytes is io.Copy with a buffer of its own, without the shortcuts that would go around TLS.
func copyBytes(to io.Writer, from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, pumpBuffer))
}
