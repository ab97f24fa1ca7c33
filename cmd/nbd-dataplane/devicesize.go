package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/internal/nbddev"
)

func newDeviceSize(c console) *cobra.Command {
	shrink := false
	cmd := &cobra.Command{
		Use:                   "device-size DEVICE [SIZE] [--shrink]",
		DisableFlagsInUseLine: true,
		Short:                 "Show or set the size of a kernel's nbd device",
		Long: "Shows the size that the kernel believes a connected nbd device to have, or tells it of a new one, while the device is in use.\n" +
			"This is what a client's machine has to do after 'ctl resize' on the server's. It works with every server; whether the export\n" +
			"has that size is not checked ('list' tells it). SIZE is in bytes, or with k, M, G, T behind it. A smaller one needs --shrink.\n\n" +
			"Setting needs root (CAP_SYS_ADMIN), outside of containers, and Linux 5.3 unless the device was connected with\n" +
			"'nbd-client -nonetlink'. What is on the device is grown with its own tools, such as resize2fs.\n\n" +
			"Exit status: 0 done; 1 the kernel refused; 2 the command line is wrong; 4 there is no such device, or nothing is connected.",
		Example: "  nbd-dataplane device-size /dev/nbd0\n" +
			"  nbd-dataplane device-size /dev/nbd0 20G && resize2fs /dev/nbd0",
		Args:              deviceSizeArgs,
		ValidArgsFunction: completeDevice,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return showDeviceSize(c, args[0])
			}
			return setDeviceSize(c, args[0], args[1], shrink)
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageFailure(flagError(cmd, err)) })
	cmd.Flags().BoolVar(&shrink, "shrink", false, "allow a smaller size: what is past it is lost to who uses the device")
	return cmd
}

func deviceSizeArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usagef("device-size: name a device, such as /dev/nbd0; see '%s --help'", cmd.CommandPath())
	case len(args) > 2:
		return usagef("device-size: %s is too much; see '%s --help'", printable(args[2]), cmd.CommandPath())
	}
	return nil
}

func completeDevice(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nbddev.Connected(), cobra.ShellCompDirectiveNoFileComp
}

func showDeviceSize(c console, path string) error {
	_, size, err := findDevice(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s: %s (%d bytes)\n", path, sizeText(size), size)
	return nil
}

func setDeviceSize(c console, path, text string, shrink bool) error {
	size, err := keyval.Size("size", text)
	if err != nil || size < nbddev.SectorBytes {
		return usagef("%s: use a size in bytes, or with k, M, G or T behind it, such as 20G", printable(text))
	}
	device, was, err := findDevice(path)
	switch {
	case err != nil:
		return err
	case size < was && !shrink:
		return usagef("%s has %s, and %s is less: what uses it would lose what is past the new end; add --shrink if it may", path, sizeText(was), sizeText(size))
	}
	is, err := device.SetSize(size)
	if err != nil {
		return deviceFailure(path, err)
	}
	fmt.Fprintf(c.out, "%s: %s, was %s (%d bytes)\n", path, sizeText(is), sizeText(was), is)
	return nil
}

func findDevice(path string) (device nbddev.Device, sizeBytes int64, err error) {
	if device, err = nbddev.Find(path); err == nil {
		sizeBytes, err = device.Size()
	}
	return device, sizeBytes, deviceFailure(path, err)
}

// deviceFailure adds the remedy.
func deviceFailure(path string, err error) error {
	path = printable(path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nbddev.ErrOther):
		return usagef("%s: it is no nbd device; name one such as /dev/nbd0", path)
	case errors.Is(err, nbddev.ErrPartition):
		return usagef("%s: it is a partition; name the whole device, such as /dev/nbd0", path)
	case errors.Is(err, fs.ErrNotExist):
		return notFound("%s: there is no such device", path)
	case errors.Is(err, nbddev.ErrNotConnected):
		return notFound("%s: nothing is connected to it", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied: only root (CAP_SYS_ADMIN), outside of containers, may set the size", path)
	case errors.Is(err, nbddev.ErrIgnored):
		return fmt.Errorf("%s: %w: before Linux 5.3 the device has to be connected again", path, err)
	case errors.Is(err, nbddev.ErrNamespace):
		return fmt.Errorf("%s: %w; run it in the network namespace of the host, outside of the container", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
