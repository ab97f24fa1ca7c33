package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// place is somewhere clients can connect: a listener, and what it is called.
type place struct {
	listener net.Listener
	socket   *unixSocket // of a unix socket with a name in the file system, else nil
	// The ways to write the address down.
	network string // tcp, unix, vsock
	path    string // unix; "@name" is abstract
	host    string // tcp: host; vsock: CID
	port    string
}

// listen opens the place that the options name. Sockets handed over by systemd take precedence.
func (o *options) listen() ([]*place, error) {
	handed, err := o.activated()
	if err != nil || len(handed) > 0 {
		return handed, err
	}
	one, err := o.listenOne()
	if err != nil {
		return nil, err
	}
	return []*place{one}, nil
}

func (o *options) listenOne() (*place, error) {
	switch {
	case strings.HasPrefix(o.socket, "@"):
		return listenAbstract(o.socket)
	case o.socket != "":
		return listenUnix(o.socket, o.door == doorQEMU)
	case o.vsock.set:
		return listenVsock(o.vsock)
	}
	return listenTCP(o.bind, o.port)
}

func listenTCP(host, port string) (*place, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, tcpError(host, port, err)
	}
	bound := l.Addr().(*net.TCPAddr)
	return &place{listener: l, network: "tcp", host: reachable(bound.IP), port: strconv.Itoa(bound.Port)}, nil
}

// reachable is the address to connect to for one that was bound to: of "all addresses", the loopback one.
func reachable(ip net.IP) string {
	switch {
	case ip == nil || ip.Equal(net.IPv4zero):
		return "127.0.0.1"
	case ip.IsUnspecified():
		return "::1"
	}
	return ip.String()
}

func tcpError(host, port string, err error) error {
	at := net.JoinHostPort(host, port)
	var errno syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return wrong(fmt.Sprintf("%s: Address already in use; choose another port with -p, or stop what listens there", at), "Failed to find an available port: Address already in use")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return wrong(fmt.Sprintf("%s: this host does not have the address; choose another one with -b", at), "Failed to bind socket: "+strerror(syscall.EADDRNOTAVAIL))
	case errors.Is(err, syscall.EACCES):
		return wrong(fmt.Sprintf("%s: no permission to listen there; choose a port above 1023 with -p", at), "Failed to bind socket: "+strerror(syscall.EACCES))
	case errors.As(err, &errno):
		return wrong(fmt.Sprintf("%s: %v", at, errno), "Failed to bind socket: "+strerror(errno))
	case errors.As(err, &dns) && dns.Name == host:
		return wrong(fmt.Sprintf("-b/--bind %s: no address is known for this name; give an address", host), fmt.Sprintf("address resolution failed for %s:%s: Name or service not known", host, port))
	}
	return wrong(fmt.Sprintf("-p/--port %s: there is no such port; use 0 (any free one) to 65535", port), fmt.Sprintf("address resolution failed for %s:%s: Servname not supported for ai_socktype", host, port))
}

func listenAbstract(name string) (*place, error) {
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, unixError(name, err)
	}
	return &place{listener: l, network: "unix", path: name}, nil
}

func unixError(path string, err error) error {
	var errno syscall.Errno
	text := err.Error()
	if errors.As(err, &errno) {
		text = strerror(errno)
	}
	remedy := "choose another path with -k"
	if errno == syscall.ENOENT || errno == syscall.ENOTDIR {
		remedy = "make the directory " + filepath.Dir(path) + " first"
	}
	return wrong(fmt.Sprintf("-k/--socket %s: %s; %s", path, text, remedy), fmt.Sprintf("Failed to bind socket to %s: %s", path, text))
}

// uri names an export at this place, for NBD clients. NBD uri.md.
func (p *place) uri(export string, isTLS bool) string {
	u := url.URL{Scheme: "nbd"}
	if isTLS {
		u.Scheme = "nbds"
	}
	switch p.network {
	case "unix":
		u.Scheme += "+unix"
		u.RawQuery = "socket=" + escapeSocket(p.path)
		return u.Scheme + ":///" + url.PathEscape(export) + "?" + u.RawQuery
	case "vsock":
		u.Scheme += "+vsock"
	}
	u.Host = net.JoinHostPort(p.host, p.port)
	text := u.Scheme + "://" + u.Host
	if export != "" {
		text += "/" + url.PathEscape(export)
	}
	return text
}

// escapeSocket leaves slashes readable; an abstract socket begins with a zero byte.
func escapeSocket(path string) string {
	if name, isAbstract := strings.CutPrefix(path, "@"); isAbstract {
		return "%00" + url.QueryEscape(name)
	}
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(path))
}

// qemuName is QEMU's own way to write the address, of use with -drive file=.
func (p *place) qemuName(export string) string {
	suffix := ""
	if export != "" {
		suffix = ":exportname=" + export
	}
	name, isAbstract := strings.CutPrefix(p.path, "@")
	switch {
	case isAbstract:
		// The short spelling knows no abstract sockets. Marshalling strings cannot go wrong.
		text, _ := json.Marshal(map[string]any{
			"driver": "nbd", "export": export, "server": map[string]any{"type": "unix", "path": name, "abstract": true},
		})
		return "json:" + string(text)
	case p.network == "unix":
		return "nbd:unix:" + p.path + suffix
	case p.network == "tcp":
		return "nbd:" + net.JoinHostPort(p.host, p.port) + suffix
	}
	return ""
}

// chardevName is how QEMU writes the address of a chardev.
func (p *place) chardevName() string {
	name, isAbstract := strings.CutPrefix(p.path, "@")
	switch {
	case isAbstract:
		return "unix:" + name + ",abstract=on,tight=on"
	case p.network == "unix":
		return "unix:" + p.path
	}
	return "tcp:" + net.JoinHostPort(p.host, p.port)
}

// close stops listening and removes the socket, if it is still ours.
func (p *place) close() {
	p.listener.Close()
	if p.socket != nil {
		p.socket.remove()
	}
}
