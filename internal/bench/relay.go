package main

import (
	"errors"

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
			return serveOn(cmd.Context(), socket, r)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "unix socket to listen on")
	return cmd
}
