package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/qcow2/offline"
)

// imageRebase is one run of image rebase.
type imageRebase struct {
	imageFlags
	c                      console
	backing, backingFormat string
	unsafe, progress       bool
}

func newImageRebase(c console) *cobra.Command {
	t := &imageRebase{c: c, imageFlags: imageFlags{noBacking: true}}
	cmd := &cobra.Command{
		Use:   "rebase -u [-U] [-p] [-q] [-t MODE] [-T MODE] [-f FMT] [-b FILE [-F FMT]] [--image-opts] IMAGE",
		Short: "Tell an image that its backing file is another one",
		Long: "Changes which file is below an image, and no data: the new file must have what the old one had, or the disk changes under its user. That is what\n" +
			"-u says, and it is the only way there is here. Without -b, or with an empty name, nothing is below any more.",
		Example: "  nbd-dataplane image rebase -u -b moved/base.qcow2 -F qcow2 overlay.qcow2",
		Args:    oneImage,
		RunE:    func(_ *cobra.Command, args []string) error { return t.run(args[0]) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&t.unsafe, "unsafe", "u", false, "change the name only")
	flags.BoolVarP(&t.progress, "progress", "p", false, "show how much is done")
	flags.StringVarP(&t.backing, "backing", "b", "", "the new backing `FILE`")
	flags.StringVarP(&t.backingFormat, "backing-format", "F", "", "`FMT` of the new backing file")
	t.add(c, cmd, "quiet format force-share cache source-cache image-opts")
	return cmd
}

func (t *imageRebase) run(path string) (err error) {
	switch {
	case !t.unsafe:
		return failed(errors.New("only unsafe mode (-u) is supported: it changes the name and compares no data; for the other there is qemu-img rebase"))
	case t.backingFormat != "" && t.backingFormat != "raw" && t.backingFormat != "qcow2" && !otherFormats[t.backingFormat]:
		return failed(fmt.Errorf("Invalid format name: '%s'", t.backingFormat))
	case t.backing != "" && t.backingFormat == "":
		return failed(fmt.Errorf("Could not change the backing file to '%s': backing format must be specified", t.backing))
	}
	t.share = false // it is about old and new backing files, which nobody reads here
	file, err := t.openFile(path, true)
	if err != nil {
		return err
	}
	defer file.closing(path, &err)
	if file.format != "qcow2" {
		return failed(fmt.Errorf("Could not change the backing file to '%s': %s", t.backing, strerror(syscall.ENOTSUP)))
	}
	im, err := file.openToChange(path, t.c.err)
	if err != nil {
		return err
	}
	bar := newProgressBar(t.c.err, t.progress)
	if err = im.SetBacking(t.backing, t.backingFormat); err == nil {
		bar.end()
	}
	switch {
	case errors.Is(err, offline.ErrNoRoom):
		return failed(fmt.Errorf("Could not change the backing file to '%s': No space left in the file header", t.backing))
	case err != nil:
		return failed(fmt.Errorf("Could not change the backing file to '%s': %s", t.backing, pathText(err)))
	}
	return nil
}
