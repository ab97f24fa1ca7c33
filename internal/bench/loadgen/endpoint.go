package loadgen

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/sys/unix"
)

const defaultPort = "10809" // assigned by IANA to NBD

// endpoint is what an NBD URI names (uri.md of the NBD project).
type endpoint struct {
	domain int
	addr   unix.Sockaddr
	export string
}

// parseURI reads the two kinds of URI a load needs. Host names are resolved here.
func parseURI(text string) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return endpoint{}, fmt.Errorf("parsing URI: %w", err)
	}
	export := strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "nbd":
		return tcpEndpoint(u, export)
	case "nbd+unix":
		path := u.Query().Get("socket")
		if path == "" {
			return endpoint{}, fmt.Errorf("URI %q names no socket", text)
		}
		return endpoint{domain: unix.AF_UNIX, addr: &unix.SockaddrUnix{Name: path}, export: export}, nil
	}
	return endpoint{}, fmt.Errorf("URI %q: want nbd: or nbd+unix:", text)
}

func tcpEndpoint(u *url.URL, export string) (endpoint, error) {
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	a, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return endpoint{}, fmt.Errorf("resolving %s: %w", u.Host, err)
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		return endpoint{}, fmt.Errorf("URI names no host: %q", u.Host)
	}
	if ip = ip.Unmap(); ip.Is4() {
		return endpoint{domain: unix.AF_INET, addr: &unix.SockaddrInet4{Port: a.Port, Addr: ip.As4()}, export: export}, nil
	}
	return endpoint{domain: unix.AF_INET6, addr: &unix.SockaddrInet6{Port: a.Port, Addr: ip.As16()}, export: export}, nil
}

// connect opens a blocking socket to e, with the receive timeout that the package
// comment speaks of.
func (e endpoint) connect() (int, error) {
	fd, err := unix.Socket(e.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening socket: %w", err)
	}
	if err := e.prepare(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (e endpoint) prepare(fd int) error {
	if err := unix.Connect(fd, e.addr); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if e.domain != unix.AF_UNIX {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("setting TCP_NODELAY: %w", err)
		}
	}
	tick := unix.NsecToTimeval(receiveTick.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
		return fmt.Errorf("setting the receive timeout: %w", err)
	}
	return nil
}
