package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/nbd"
)

// connectMax bounds connecting to a server that is to be listed.
const connectMax = 30 * time.Second

// list asks the server that the options name for its exports.
func list(c console, o *options) error {
	if err := o.check(); err != nil {
		return err
	}
	config, err := o.clientTLS()
	if err != nil {
		return err
	}
	conn, err := o.dial()
	if err != nil {
		return err
	}
	exports, err := nbd.ListExports(context.Background(), conn, nbd.ListOptions{TLS: config})
	if err != nil {
		return fmt.Errorf("list exports: %w", err)
	}
	return printExports(c.out, exports)
}

func (o *options) clientTLS() (*tls.Config, error) {
	creds, err := o.credentials()
	if err != nil || creds == nil {
		return nil, err
	}
	if !creds.isClient {
		return nil, wrong(fmt.Sprintf("--tls-creds %s: the credentials are a server's; add endpoint=client to the --object", o.tlsCreds),
			"Failed to get TLS creds: Expecting TLS credentials with a client endpoint")
	}
	hostname := o.tlsHostname
	if hostname == "" && o.socket == "" && !o.vsock.set {
		hostname = o.bind
	}
	files, err := creds.tlsFiles(o.secret)
	if err != nil {
		return nil, err
	}
	files.VerifyPeer = files.VerifyPeer || o.tlsCertificates != ""
	return nbd.LoadClientTLS(files, hostname)
}

func (o *options) dial() (net.Conn, error) {
	if o.vsock.set {
		return dialVsock(o.vsock)
	}
	network, address := "tcp", net.JoinHostPort(o.bind, o.port)
	if o.socket != "" {
		network, address = "unix", o.socket
	}
	conn, err := net.DialTimeout(network, address, connectMax)
	if err == nil {
		return conn, nil
	}
	reason := err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		reason = strerror(errno)
	}
	if o.socket != "" {
		return nil, wrong(fmt.Sprintf("connect to %s: %s; is a server listening there", o.socket, reason), fmt.Sprintf("Failed to connect to '%s': %s", o.socket, reason))
	}
	return nil, wrong(fmt.Sprintf("connect to %s: %s; is a server listening there", address, reason), fmt.Sprintf("Failed to connect to '%s:%s': %s", o.bind, o.port, reason))
}

func dialVsock(a vsockAddress) (net.Conn, error) {
	if a.cid == vsockCIDAny {
		a.cid = unix.VMADDR_CID_LOCAL
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("--vsock: this kernel has no vsock sockets: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: a.cid, Port: a.port}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to vsock %v: %w; is a server listening there", a, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to vsock %v: %w", a, err)
	}
	return &vsockConn{File: os.NewFile(uintptr(fd), "vsock:"+a.String()), remote: a}, nil
}

// listFlags are the names of transmission flags in the order and spelling of qemu-nbd's list, which tests parse.
var listFlags = []struct {
	flag nbd.TransmissionFlags
	name string
}{
	{nbd.FlagReadOnly, "readonly"},
	{nbd.FlagSendFlush, "flush"},
	{nbd.FlagSendFUA, "fua"},
	{nbd.FlagRotational, "rotational"},
	{nbd.FlagSendTrim, "trim"},
	{nbd.FlagSendWriteZeroes, "zeroes"},
	{nbd.FlagSendDF, "df"},
	{nbd.FlagCanMultiConn, "multi"},
	{nbd.FlagSendResize, "resize"},
	{nbd.FlagSendCache, "cache"},
	{nbd.FlagSendFastZero, "fast-zero"},
	{nbd.FlagBlockStatusPayload, "block-status-payload"},
}

// printExports writes a list as qemu-nbd does.
func printExports(w io.Writer, exports []nbd.RemoteExport) error {
	var b strings.Builder
	fmt.Fprintf(&b, "exports available: %d\n", len(exports))
	for n := range exports {
		printExport(&b, &exports[n])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printExport(b *strings.Builder, e *nbd.RemoteExport) {
	fmt.Fprintf(b, " export: '%s'\n", e.Name)
	if e.Description != "" {
		fmt.Fprintf(b, "  description: %s\n", e.Description)
	}
	if !e.Known {
		return
	}
	fmt.Fprintf(b, "  size:  %d\n", e.Size)
	fmt.Fprintf(b, "  flags: 0x%x (", uint16(e.Flags))
	for _, row := range listFlags {
		if e.Flags&row.flag != 0 {
			b.WriteString(" " + row.name)
		}
	}
	b.WriteString(" )\n")
	for _, row := range []struct {
		name  string
		bytes uint32
	}{{"min", e.MinBlock}, {"opt", e.PreferredBlock}, {"max", e.MaxPayload}} {
		if e.MinBlock != 0 {
			fmt.Fprintf(b, "  %s block: %d\n", row.name, row.bytes)
		}
	}
	fmt.Fprintf(b, "  available meta contexts: %d\n", len(e.Contexts))
	for _, c := range e.Contexts {
		fmt.Fprintf(b, "   %s\n", c.Name)
	}
}
