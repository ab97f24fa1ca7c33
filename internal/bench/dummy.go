package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/bench/dummy"
)

const dummyMax = 8 << 30 // it keeps its export in memory

// dummyCommand serves the server named ceiling, in a process of its own as all others.
func dummyCommand() *cobra.Command {
	var socket string
	var size int64
	cmd := &cobra.Command{
		Use:           "dummy",
		Short:         "Serve memory in the least way, to see what the client can do",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" || size <= 0 || size > dummyMax {
				return errors.New("want --socket, and --size up to 8 GiB")
			}
			ln, err := net.Listen("unix", socket)
			if err != nil {
				return fmt.Errorf("listening: %w", err)
			}
			defer context.AfterFunc(cmd.Context(), func() { ln.Close() })()
			return dummy.New(size).Serve(ln)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "unix socket to listen on")
	cmd.Flags().Int64Var(&size, "size", 0, "bytes of the export")
	return cmd
}
