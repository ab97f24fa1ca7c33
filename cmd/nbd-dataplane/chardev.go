package main

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"nbd-dataplane/qmp"
)

// chardev is a way for a monitor to come in.
type chardev struct {
	place  *place // a socket that listens
	stdio  bool
	waits  bool // for its first client before the program goes on
	taken  bool // a monitor has it
	pretty bool
}

// makeChardev reads a --chardev and opens it.
func makeChardev(text string) (id string, c *chardev, err error) {
	v, err := qmp.ParseOption(text, "backend")
	if err != nil {
		return "", nil, err
	}
	var head struct {
		Backend string  `qmp:"backend"`
		ID      *string `qmp:"id"`
	}
	rest, err := v.Take(&head)
	switch {
	case err != nil:
		return "", nil, err
	case head.ID == nil:
		return "", nil, qmp.Errorf("chardev: no id specified")
	}
	switch head.Backend {
	case "stdio":
		c = &chardev{stdio: true}
		err = rest.Decode(&struct {
			Signal *bool `qmp:"signal"`
		}{})
	case "null":
		c = &chardev{}
		err = rest.Decode(&struct{}{})
	case "socket":
		c, err = makeSocketChardev(rest)
	default:
		err = qmp.Errorf("'%s' is not a valid char driver name", head.Backend)
	}
	return *head.ID, c, err
}

func makeSocketChardev(v qmp.Value) (*chardev, error) {
	var a struct {
		Path      *string `qmp:"path"`
		Host      *string `qmp:"host"`
		Port      *string `qmp:"port"`
		Server    bool    `qmp:"server,optional"`
		Wait      *bool   `qmp:"wait"`
		Abstract  bool    `qmp:"abstract,optional"`
		Tight     *bool   `qmp:"tight"`
		IPv4      *bool   `qmp:"ipv4"`
		IPv6      *bool   `qmp:"ipv6"`
		NoDelay   *bool   `qmp:"nodelay"`
		Reconnect *int64  `qmp:"reconnect"`
	}
	if err := v.Decode(&a); err != nil {
		return nil, err
	}
	c := &chardev{waits: a.Wait == nil || *a.Wait}
	var err error
	switch {
	case !a.Server:
		return nil, qmp.Errorf("a monitor's socket listens; add server=on,wait=off")
	case a.Path != nil && a.Abstract:
		c.place, err = listenAbstract("@" + *a.Path)
	case a.Path != nil:
		c.place, err = listenPrivately(*a.Path, true)
	case a.Host != nil && a.Port != nil:
		c.place, err = listenTCP(*a.Host, *a.Port)
	default:
		return nil, qmp.Errorf("a socket needs a path, or a host and a port")
	}
	return c, err
}

// listenPrivately makes a socket that only its owner may connect to: who reaches a monitor may do anything to the server.
func listenPrivately(path string, takeOver bool) (*place, error) {
	before := unix.Umask(0o177)
	defer unix.Umask(before)
	return listenUnix(path, takeOver)
}

// serve lets monitors in until the server of monitors is closed.
func (c *chardev) serve(s *qmp.Server) error {
	monitor := qmp.Monitor{Pretty: c.pretty}
	switch {
	case c.stdio:
		go serveStdio(s, monitor)
	case c.place == nil:
	case c.waits:
		conn, err := c.place.listener.Accept()
		if err != nil {
			return err
		}
		go serveOne(s, conn, monitor)
		fallthrough
	default:
		go serveLoop(s, c.place.listener, monitor)
	}
	return nil
}

// serveLoop ends with the server.
func serveLoop(s *qmp.Server, l net.Listener, m qmp.Monitor) { _ = s.Serve(l, m) }

// serveOne ends with the client.
func serveOne(s *qmp.Server, conn net.Conn, m qmp.Monitor) { _ = s.ServeConn(conn, m) }

// serveStdio ends with the standard input.
func serveStdio(s *qmp.Server, m qmp.Monitor) { _ = s.ServeConn(stdio{os.Stdin, os.Stdout}, m) }

func (c *chardev) close() {
	if c.place != nil {
		c.place.close()
	}
}

// stdio is the standard input and output as one.
type stdio struct {
	io.Reader
	io.Writer
}

// Close ends the reads; the descriptors belong to the process.
func (stdio) Close() error { return errors.Join(os.Stdin.SetReadDeadline(pastTime), nil) }
