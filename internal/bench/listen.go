package main

import (
	"context"
	"fmt"
	"net"
)

// listenServer answers whoever comes to a listener, until that is closed.
type listenServer interface{ Serve(net.Listener) error }

// serveOn has s serve a unix socket until ctx ends.
func serveOn(ctx context.Context, socket string, s listenServer) error {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	return s.Serve(ln)
}
