package nbd

import (
	"crypto/tls"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Peer is who is at the other end of a connection, as far as it is known without trusting its word.
// A Peer does not change; STARTTLS makes a new one.
type Peer struct {
	// Immutable.
	Addr string           // remote address, "" for an unnamed unix socket
	Unix *UnixCredentials // nil unless the connection is a unix socket
	TLS  bool             // TLS is on

	TLSVersion uint16 // tls.VersionTLS12 or later, when TLS is on
	DN         string // name of the verified client certificate as GnuTLS writes it; "" if there is none
}

// UnixCredentials is what the kernel says of the process that connected to a unix socket.
type UnixCredentials struct {
	PID      int32
	UID, GID uint32
}

// newPeer describes the other end of conn, which is still in clear.
func newPeer(conn net.Conn) *Peer {
	p := &Peer{}
	if a := conn.RemoteAddr(); a != nil {
		p.Addr = a.String()
	}
	if c, ok := conn.(*net.UnixConn); ok {
		p.Unix = unixCredentials(c)
	}
	return p
}

// secured is the same peer once TLS is on. A certificate in state was verified: with verify-peer off clients
// are not asked for one, and otherwise TLSCredentials let none pass that was not.
func (p *Peer) secured(state tls.ConnectionState) *Peer {
	s := *p
	s.TLS, s.TLSVersion = true, state.Version
	if len(state.PeerCertificates) > 0 {
		s.DN = distinguishedName(state.PeerCertificates[0].RawSubject)
	}
	return &s
}

// unixCredentials asks the kernel who connected; nil if it does not say.
func unixCredentials(c *net.UnixConn) *UnixCredentials {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var u *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		u, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || u == nil {
		return nil
	}
	return &UnixCredentials{PID: u.Pid, UID: u.Uid, GID: u.Gid}
}

// String names the peer for logs.
func (p *Peer) String() string {
	s := p.Addr
	switch {
	case p.Unix != nil:
		s = fmt.Sprintf("unix pid=%d uid=%d gid=%d", p.Unix.PID, p.Unix.UID, p.Unix.GID)
	case s == "":
		s = "unknown"
	}
	if p.TLS {
		s += " " + tls.VersionName(p.TLSVersion)
	}
	if p.DN != "" {
		s += fmt.Sprintf(" dn=%q", p.DN)
	}
	return s
}
