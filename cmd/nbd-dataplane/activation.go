package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// firstActivated is the first descriptor that systemd hands over. sd_listen_fds(3).
const firstActivated = 3

// activatedCount is how many sockets have been handed to this process.
func activatedCount() int {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return n
}

// activated takes the sockets that systemd, or a client such as nbdinfo, has handed over.
func (o *options) activated() ([]*place, error) {
	count := activatedCount()
	if count == 0 {
		return nil, nil
	}
	if err := o.checkActivation(); err != nil {
		return nil, err
	}
	var places []*place
	for n, f := range activation.Files(true) {
		p, err := activatedPlace(f, firstActivated+n)
		if err != nil {
			for _, open := range places {
				open.close()
			}
			return nil, err
		}
		places = append(places, p)
	}
	return places, nil
}

// checkActivation: a socket handed over says where to listen, so nothing else may. Wording and order are QEMU's.
func (o *options) checkActivation() error {
	for _, row := range []struct{ name, qemu string }{
		{"socket", "Unix socket can't be set when using socket activation"},
		{"bind", "The interface can't be set when using socket activation"},
		{"port", "TCP port number can't be set when using socket activation"},
		{"vsock", ""},
	} {
		if o.given[row.name] {
			return wrong(fmt.Sprintf("--%s: the socket to listen on was handed over (LISTEN_FDS); leave the option out", row.name), row.qemu)
		}
	}
	return nil
}

func activatedPlace(f *os.File, fd int) (*place, error) {
	defer f.Close()
	bad := func(err error) error {
		var errno unix.Errno
		if errors.As(err, &errno) {
			return wrong(fmt.Sprintf("LISTEN_FDS: descriptor %d: %v; hand over a listening socket", fd, errno),
				fmt.Sprintf("Socket activation failed: invalid file descriptor fd = %d: %s", fd, strerror(errno)))
		}
		return fmt.Errorf("LISTEN_FDS: descriptor %d: %w; hand over a listening socket", fd, err)
	}
	domain, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, bad(err)
	}
	if domain == unix.AF_VSOCK {
		p, err := adoptVsock(int(f.Fd()))
		if err != nil {
			return nil, bad(err)
		}
		return p, nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, bad(err)
	}
	if u, isUnix := l.(*net.UnixListener); isUnix {
		u.SetUnlinkOnClose(false) // the socket is systemd's
	}
	return &place{listener: l, network: l.Addr().Network(), path: unixPath(l.Addr()), host: tcpHost(l.Addr()), port: tcpPort(l.Addr())}, nil
}

func unixPath(a net.Addr) string {
	if u, ok := a.(*net.UnixAddr); ok {
		return u.Name
	}
	return ""
}

func tcpHost(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return reachable(t.IP)
	}
	return ""
}

func tcpPort(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return strconv.Itoa(t.Port)
	}
	return ""
}
