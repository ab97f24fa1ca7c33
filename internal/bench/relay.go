package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/bench/nfsleast"
)

// relayCommand serves the server named nfs-relay, in a process of its own as all others.
func relayCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:           "relay nfs://HOST/DIRECTORY/FILE",
		Short:         "Serve a file of an NFS server with the least processor time, to see what that is",
		Args:          cobra.ExactArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if socket == "" {
				return errors.New("want --socket")
			}
			r, err := nfsleast.NewRelay(args[0])
			if err != nil {
				return err
			}
			ln, err := net.Listen("unix", socket)
			if err != nil {
				return fmt.Errorf("listening: %w", err)
			}
			defer context.AfterFunc(cmd.Context(), func() { ln.Close() })()
			return r.Serve(ln)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "unix socket to listen on")
	return cmd
}
