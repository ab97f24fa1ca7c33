package nfs

import (
	"context"
	"errors"
	"net"

	"nbd-dataplane/backends/nfs/wire"
)

// errNoPort says that a program of the server does not listen.
var errNoPort = errors.New("the port mapper knows of no such program")

// port asks the port mapper where a program listens.
func (d *dialer) port(ctx context.Context, p wire.Program) (int, error) {
	conn, err := d.connect(ctx, wire.PortPortmap)
	if err != nil {
		return 0, err
	}
	return askPort(ctx, conn, p)
}

// askPort asks over a connection, which it closes. A program may listen at another port for IPv6 than for IPv4, as those of Linux do that were told none: only version 3 of the port
// mapper tells. Where it does not know, or is not there, version 2 may.
func askPort(ctx context.Context, conn net.Conn, p wire.Program) (int, error) {
	c := newClient(ctx, conn, nil)
	defer c.close()
	if overIPv6(conn) {
		b, err := c.call(wire.ProgramPortmap3, wire.PortmapGetaddr, wire.AppendGetaddr(nil, p))
		if err == nil {
			if port, err := wire.ParseGetaddr(b); err == nil && port != 0 {
				return int(port), nil
			}
		}
	}
	b, err := c.call(wire.ProgramPortmap, wire.PortmapGetport, wire.AppendGetport(nil, p))
	if err != nil {
		return 0, err
	}
	port, err := wire.ParseGetport(b)
	if err == nil && port == 0 {
		err = errNoPort
	}
	return int(port), err
}

// overIPv6 reports whether a connection is one of IPv6, and not of IPv4 under another name.
func overIPv6(conn net.Conn) bool {
	at, is := conn.RemoteAddr().(*net.TCPAddr)
	return is && at.IP.To4() == nil
}
