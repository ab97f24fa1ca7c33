package main

import (
	"errors"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/bench/dummy"
	"nbd-dataplane/internal/bench/least"
)

const memoryMax = 8 << 30 // of an export in memory

// dummyCommand serves the server named ceiling, in a process of its own as all others.
func dummyCommand() *cobra.Command {
	return memoryCommand("dummy", "Serve memory in the least way, to see what the client can do", func(size int64) listenServer { return dummy.New(size) })
}

// leastCommand serves the server named floor.
func leastCommand() *cobra.Command {
	return memoryCommand("least", "Serve memory with the least processor time, to see what that is", func(size int64) listenServer { return least.New(size) })
}

func memoryCommand(use, short string, create func(sizeBytes int64) listenServer) *cobra.Command {
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
			return serveOn(cmd.Context(), socket, create(size))
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "unix socket to listen on")
	cmd.Flags().Int64Var(&size, "size", 0, "bytes of the export")
	return cmd
}
