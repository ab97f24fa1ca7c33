package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/bench/dummy"
	"nbd-dataplane/internal/bench/least"
)

const memoryMax = 8 << 30 // of an export in memory

// dummyCommand serves the server named ceiling, in a process of its own as all others.
func dummyCommand() *cobra.Command {
	return memoryCommand("dummy", "Serve memory in the least way, to see what the client can do", func(size int64) memoryServer { return dummy.New(size) })
}

// leastCommand serves the server named floor.
func leastCommand() *cobra.Command {
	return memoryCommand("least", "Serve memory with the least processor time, to see what that is", func(size int64) memoryServer { return least.New(size) })
}

// memoryServer is an export in memory.
type memoryServer interface{ Serve(net.Listener) error }

func memoryCommand(use, short string, create func(sizeBytes int64) memoryServer) *cobra.Command {
	var socket string
	var size int64
	cmd := &cobra.Command{
		Use:           use,
		Short:         short,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" || size <= 0 || size > memoryMax {
				return errors.New("want --socket, and --size up to 8 GiB")
			}
			s := create(size)
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
