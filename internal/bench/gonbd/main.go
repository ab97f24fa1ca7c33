// Command gonbd serves a file with the server of github.com/pojntfx/go-nbd as it comes.
// It is the naive baseline of the benchmark: what a straightforward NBD server in Go
// does, one blocking request after the other on each connection.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/pojntfx/go-nbd/pkg/server"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gonbd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := flag.NewFlagSet("gonbd", flag.ContinueOnError)
	socket := f.String("socket", "", "unix socket to listen on")
	size := f.Int64("null", 0, "serve so many bytes of nothing instead of a file")
	if err := f.Parse(args); err != nil {
		return err
	}
	b, err := open(*size, f.Args())
	if err != nil {
		return err
	}
	ln, err := net.Listen("unix", *socket)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	for {
		conn, err := ln.Accept()
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		go serve(conn, b)
	}
}

func open(size int64, files []string) (backend.Backend, error) {
	if size > 0 {
		return null(size), nil
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("want one file, got %q", files)
	}
	file, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return backend.NewFileBackend(file), nil
}

// serve ends with its connection.
func serve(conn net.Conn, b backend.Backend) {
	defer conn.Close()
	// An error is a client that has gone, which happens at the end of every measurement.
	_ = server.Handle(conn, []*server.Export{{Backend: b}}, &server.Options{SupportsMultiConn: true})
}

// null is a backend of so many bytes of nothing.
type null int64

// ReadAt reads zeroes.
func (null) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// WriteAt forgets p.
func (null) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// Size returns the number of bytes.
func (n null) Size() (int64, error) { return int64(n), nil }

// Sync has nothing to do.
func (null) Sync() error { return nil }
