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
	o.DescribeFile = inQEMU(describeFile)
	o.Listen = inQEMU(listenAddress)
	o.Security = func(r control.SecurityRequest) (control.Security, error) {
		s, err := readSecurity(r, func(err error) { j.warn(err.Error()) })
		return s, wordsOfQEMU(err)
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
	text := qemuText(err)
	if usage, is := errors.AsType[*usageError](err); is && usage.hint != "" {
		text = usage.qemu // programs have no use for a hint
	}
	return &worded{qmp: &qmp.Error{Class: qmp.ErrorOf(err).Class, Desc: text}, cause: err}
}

// worded is an error in QEMU's words, with what it was before.
type worded struct {
	qmp   *qmp.Error
	cause error
}

func (e *worded) Error() string   { return e.qmp.Error() }
func (e *worded) Unwrap() []error { return []error{e.qmp, e.cause} }

// readSecurity makes credentials, an authorization or a secret of an object's options in JSON, as --object does of its text.
func readSecurity(r control.SecurityRequest, warn func(error)) (s control.Security, err error) {
	set, err := keysOfJSON(string(r.Options))
	if err != nil {
		return s, err
	}
	set.Put("qom-type", r.Kind)
	set.Put("id", r.ID)
	b, err := readObject(set, r.Secret)
	s.Authorizer, s.Secret = b.authz, b.secret
	if err != nil || b.creds == nil {
		return s, err
	}
	if b.creds.isClient {
		return s, wrong("the credentials are a client's; add endpoint=server", "Expecting TLS credentials with a server endpoint")
	}
	files, err := b.creds.tlsFiles(r.Secret)
	if err != nil {
		return s, err
	}
	files.Dir = lasting(files.Dir)
	if s.Credentials, err = nbd.LoadTLS(files, warn); err != nil {
		return s, tlsError(b.creds.dir, err)
	}
	return s, nil
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
			return control.Listener{}, fmt.Errorf("File descriptor '%s' is not a socket", a.FD)
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
