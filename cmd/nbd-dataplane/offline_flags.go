package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/raw"
)

// imageFlags are the options that most commands have.
type imageFlags struct {
	format  string
	output  string
	quiet   bool
	share   bool // no locks, for reading what others write
	options bool // the name of the image is a list of options
	warn    func(string)
	// noBacking is set where nobody looks below the image: QEMU has no options for that then.
	noBacking bool

	// What qemu-img takes and the tools have no use for: they write through the page cache and sync, and images that need a secret are refused.
	cache, sourceCache string
	objects            []string
}

func (f *imageFlags) add(c console, cmd *cobra.Command, names string) {
	f.warn = c.warn
	flags := cmd.Flags()
	for _, name := range strings.Fields(names) {
		switch name {
		case "format":
			flags.StringVarP(&f.format, name, "f", "", "the image's `FMT`, qcow2 or raw; it is guessed otherwise")
		case "output":
			flags.StringVar(&f.output, name, "human", "`FMT` of the output, human or json")
		case "quiet":
			flags.BoolVarP(&f.quiet, name, "q", false, "print errors only")
		case "cache":
			flags.StringVarP(&f.cache, name, "t", "", "`MODE` of caching; any is taken, and what is written is stored when the command ends")
		case "source-cache":
			flags.StringVarP(&f.sourceCache, name, "T", "", "`MODE` of caching for what is read; any is taken, and makes no difference")
		case "image-opts":
			flags.BoolVar(&f.options, name, false, "FILE is a list of options: driver=qcow2,file.filename=PATH")
		case "force-share":
			flags.BoolVarP(&f.share, name, "U", false, "read the image even if somebody writes it, who may make it look damaged")
		}
	}
	objectFlag(cmd, &f.objects)
	flags.SortFlags = false
	for _, name := range []string{"cache", "source-cache"} {
		completes(cmd, name, "none", "writeback", "writethrough", "directsync", "unsafe")
	}
	completes(cmd, "format", "qcow2", "raw")
	completes(cmd, "output", "human", "json")
}

// objectFlag adds --object.
func objectFlag(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVar(to, "object", nil, "`DEFINITION` of a secret, as qemu-img takes it; nothing here needs one, since encrypted images are refused")
}

// judgeCaches refuses modes that there are not.
func (f *imageFlags) judgeCaches() error {
	for _, c := range []struct{ mode, kind string }{{f.cache, "cache"}, {f.sourceCache, "source cache"}} {
		if _, err := raw.ParseCache(c.mode); c.mode != "" && err != nil {
			return failed(fmt.Errorf("Invalid %s option: %s", c.kind, c.mode))
		}
	}
	return nil
}

// completes has the shell offer the values of an option, if the command has it.
func completes(cmd *cobra.Command, name string, values ...string) {
	if cmd.Flags().Lookup(name) != nil {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // fails without the flag only
	}
}

// json says how to print; anything but the two words is an error.
func (f *imageFlags) json() (bool, error) {
	switch f.output {
	case "human", "json":
		return f.output == "json", nil
	}
	return false, failed(errors.New("--output must be used with human or json as argument."))
}
