package main

import (
	"errors"
	"fmt"
	"math/bits"
	"syscall"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/internal/keyval"
)

// bitmapAction is one of the things that image bitmap does, in the order of the command line.
type bitmapAction struct {
	what   string
	source string // of a merge
}

// actionFlag is an option that adds an action.
type actionFlag struct {
	what     string
	actions  *[]bitmapAction
	argument bool
}

// Set implements pflag.Value.
func (f *actionFlag) Set(v string) error {
	a := bitmapAction{what: f.what}
	if f.argument {
		a.source = v
	}
	*f.actions = append(*f.actions, a)
	return nil
}

// Type implements pflag.Value.
func (f *actionFlag) Type() string {
	if f.argument {
		return "SOURCE"
	}
	return "bool"
}

func (f *actionFlag) String() string { return "" }

// imageBitmap is one run of image bitmap.
type imageBitmap struct {
	imageFlags
	c                        console
	actions                  []bitmapAction
	granularity              string
	granularityBits          uint
	sourceFile, sourceFormat string
}

func newImageBitmap(c console) *cobra.Command {
	t := &imageBitmap{c: c, imageFlags: imageFlags{noBacking: true}}
	cmd := &cobra.Command{
		Use:   "bitmap (--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b FILE [-F FMT]] [-g GRANULARITY] [-f FMT | --image-opts] FILE BITMAP",
		Short: "Change the persistent dirty bitmaps of an image",
		Long: "Does one thing or several, in the order in which they are given, to a persistent dirty bitmap: what a backup program uses to know what\n" +
			"has been written. 'image info' lists them.",
		Example: "  nbd-dataplane image bitmap --add disk.qcow2 backup0\n  nbd-dataplane image bitmap --merge backup0 --disable disk.qcow2 sum",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return failed(fmt.Errorf("Expecting filename and bitmap name; see '%s --help'", cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return t.run(args[0], args[1]) },
	}
	for _, o := range []struct{ name, help string }{
		{"add", "add the bitmap"}, {"remove", "remove it"}, {"clear", "mark nothing in it"}, {"enable", "let writes be marked in it"},
		{"disable", "let no writes be marked in it"},
	} {
		cmd.Flags().VarPF(&actionFlag{what: o.name, actions: &t.actions}, o.name, "", o.help).NoOptDefVal = noArgument
	}
	cmd.Flags().Var(&actionFlag{what: "merge", actions: &t.actions, argument: true}, "merge", "mark in it what the bitmap `SOURCE` marks")
	cmd.Flags().StringVarP(&t.sourceFile, "source-file", "b", "", "the image that has SOURCE, another `FILE`")
	cmd.Flags().StringVarP(&t.sourceFormat, "source-format", "F", "", "`FMT` of that file")
	cmd.Flags().StringVarP(&t.granularity, "granularity", "g", "", "how many bytes one bit of a new bitmap stands for, a power of two")
	t.add(c, cmd, "format image-opts")
	return cmd
}

func (t *imageBitmap) run(path, name string) (err error) {
	if err := t.judge(); err != nil {
		return failed(err)
	}
	file, err := t.openFile(path, true)
	if err != nil {
		return err
	}
	defer file.closing(path, &err)
	if file.format != "qcow2" {
		return failed(fmt.Errorf("Operation %s on bitmap %s failed: Can't store persistent bitmaps: %s", t.actions[0].what, name, strerror(syscall.ENOTSUP)))
	}
	im, err := file.openToChange(path, t.c.err)
	if err != nil {
		return err
	}
	from := im
	if t.sourceFile != "" {
		source, err := (&imageFlags{format: t.sourceFormat}).openFile(t.sourceFile, false)
		if err != nil {
			return err
		}
		defer source.Close()
		if from, err = source.open(t.sourceFile, format.ForUse); err != nil {
			return err
		}
	}
	for _, a := range t.actions {
		if err := t.do(a, im, from, name); err != nil {
			return failed(fmt.Errorf("Operation %s on bitmap %s failed: %s", a.what, name, bitmapText(path, name, err)))
		}
	}
	return nil
}

// judge looks whether the options make sense together.
func (t *imageBitmap) judge() error {
	var add, merge bool
	for _, a := range t.actions {
		add, merge = add || a.what == "add", merge || a.what == "merge"
	}
	switch {
	case len(t.actions) == 0:
		return errors.New("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge")
	case t.granularity != "" && !add:
		return errors.New("granularity only supported with --add")
	case t.sourceFile != "" && !merge:
		return errors.New("Merge bitmap source only supported with --merge")
	case t.sourceFormat != "" && t.sourceFile == "":
		return errors.New("-F without -b makes no sense")
	case t.granularity == "":
		return nil
	}
	n, err := keyval.Size("granularity", t.granularity)
	if err != nil {
		return errors.New("Invalid granularity specified")
	}
	if bits.OnesCount64(uint64(n)) == 1 {
		t.granularityBits = uint(bits.TrailingZeros64(uint64(n)))
	} else {
		t.granularityBits = 1 // no power of two, and refused as such
	}
	return nil
}

func (t *imageBitmap) do(a bitmapAction, im, from *offline.Image, name string) error {
	switch a.what {
	case "add":
		if t.granularity == "" {
			t.granularityBits = im.DefaultGranularityBits()
		}
		return im.AddBitmap(name, t.granularityBits)
	case "remove":
		return im.RemoveBitmap(name)
	case "clear":
		return im.ClearBitmap(name)
	case "merge":
		return im.MergeBitmap(name, from, a.source)
	}
	return im.EnableBitmap(name, a.what == "enable")
}

// bitmapText is QEMU's text for what went wrong with a bitmap. QEMU names a node there where we name the image.
func bitmapText(path, name string, err error) string {
	if _, is := errors.AsType[*offline.Unkept](err); is {
		return fmt.Sprintf("Can't make bitmap '%s' persistent in '%s': %s", name, path, bitmapText(path, name, errors.Unwrap(err)))
	}
	var known *format.Error
	if errors.As(err, &known) {
		return known.Text
	}
	return pathText(err)
}
