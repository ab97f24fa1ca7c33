package blocking

import (
	"errors"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// Serve gives one client after the other a thread, until ln is closed: negotiate does the handshake and reports whether there is more, and client has the
// socket then, until it returns.
func Serve(ln net.Listener, negotiate func(net.Conn) bool, client func(fd int)) error {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		serveOne(conn, negotiate, client)
	}
}

func serveOne(conn net.Conn, negotiate func(net.Conn) bool, client func(fd int)) {
	defer conn.Close()
	raw, ok := conn.(*net.UnixConn)
	if !ok || !negotiate(conn) {
		return
	}
	fd, err := Own(raw)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	client(fd)
}
