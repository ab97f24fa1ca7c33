package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/bench/least"
)

// leastCommand serves the server named floor, in a process of its own as all others.
func leastCommand() *cobra.Command {
	var socket string
	var size int64
	cmd := &cobra.Command{
		Use:           "least",
		Short:         "Serve memory with the least processor time, to see what that is",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" || size <= 0 || size > dummyMax {
				return errors.New("want --socket, and --size up to 8 GiB")
			}
			s := least.New(size)
			ln, err := net.Listen("unix", socket)
			if err != nil {
				return fmt.Errorf("listening: %w", err)
			}
			defer context.AfterFunc(cmd.Context(), func() { ln.Close() })()
			return s.Serve(ln)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "unix socket to listen on")
	cmd.Flags().Int64Var(&size, "size", 0, "bytes of the export")
	return cmd
}
