package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// newPlane puts the control plane together with what only the program knows: drivers, sockets, credentials.
func newPlane(o control.Options, j *journal) *control.Plane {
	o.Drivers = drivers(j)
	for name, d := range o.Drivers {
		d.Open = inQEMU(d.Open)
		if d.Reopen != nil {
			d.Reopen = inQEMU(d.Reopen)
		}
		o.Drivers[name] = d
	}
	o.Version = version
	o.NewContext = blockcore.NewAioContext
	o.NewServer = nbd.NewServer
	o.Creators = creators()
	o.CreateImage = inQEMU(createImage)
	o.Listen = inQEMU(listenAddress)
	o.Security = func(kind, id string, options []byte) (*nbd.TLSCredentials, nbd.Authorizer, error) {
		creds, authz, err := readSecurity(kind, id, options, func(err error) { j.warn(err.Error()) })
		return creds, authz, wordsOfQEMU(err)
	}
	return control.New(o)
}

// inQEMU is what do does, with errors in QEMU's words: programs at monitors know those.
func inQEMU[A, R any](do func(A) (R, error)) func(A) (R, error) {
	return func(a A) (R, error) {
		result, err := do(a)
		return result, wordsOfQEMU(err)
	}
}

func wordsOfQEMU(err error) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*worded](err); done { // of a node below
		return &worded{qmp: qmp.ErrorOf(err), cause: err}
	}
	return &worded{qmp: &qmp.Error{Class: qmp.ErrorOf(err).Class, Desc: qemuText(err)}, cause: err}
}

// worded is an error in QEMU's words, with what it was before.
type worded struct {
	qmp   *qmp.Error
	cause error
}

func (e *worded) Error() string   { return e.qmp.Error() }
func (e *worded) Unwrap() []error { return []error{e.qmp, e.cause} }

// readSecurity makes credentials or an authorization of an object's options in JSON, as --object does of its text.
func readSecurity(kind, id string, options []byte, warn func(error)) (*nbd.TLSCredentials, nbd.Authorizer, error) {
	set, err := keysOfJSON(string(options))
	if err != nil {
		return nil, nil, err
	}
	set.Put("qom-type", kind)
	set.Put("id", id)
	b, err := readObject(set)
	if err != nil || b.creds == nil {
		return nil, b.authz, err
	}
	if b.creds.isClient {
		return nil, nil, wrong("the credentials are a client's; add endpoint=server", "Expecting TLS credentials with a server endpoint")
	}
	creds, err := nbd.LoadTLS(lasting(b.creds.dir), b.creds.verifyPeer, warn)
	if err != nil {
		return nil, nil, tlsError(b.creds.dir, err)
	}
	return creds, nil, nil
}

// listenAddress opens the socket of nbd-server-start.
func listenAddress(a control.Address) (control.Listener, error) {
	o := defaultsOf(doorServe)
	switch a.Type {
	case "unix":
		o.socket = a.Path
		if a.Abstract {
			o.socket = "@" + a.Path
		}
	case "inet":
		o.bind, o.port = a.Host, a.Port
	case "vsock":
		if err := setVsock(o, a.CID+":"+a.Port); err != nil {
			return control.Listener{}, err
		}
	default:
		fd, err := strconv.Atoi(a.FD)
		if err != nil {
			return control.Listener{}, fmt.Errorf("File descriptor '%s' is no number", a.FD)
		}
		if !listens(fd) { // it may be anything of ours, which stays open
			return control.Listener{}, fmt.Errorf("File descriptor '%s' is not a socket that listens", a.FD)
		}
		p, err := activatedPlace(os.NewFile(uintptr(fd), "addr.fd"), fd)
		if err != nil {
			return control.Listener{}, err
		}
		return control.Listener{Listener: p.listener, Close: p.close}, nil
	}
	places, err := o.listen()
	if err != nil {
		return control.Listener{}, err
	}
	return control.Listener{Listener: places[0].listener, Close: places[0].close}, nil
}

// listens reports whether fd is a listening socket.
func listens(fd int) bool {
	yes, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && yes == 1
}
