package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
)

// imageSnapshot is one run of image snapshot.
type imageSnapshot struct {
	imageFlags
	c                     console
	list                  bool
	create, remove, apply string
}

func newImageSnapshot(c console) *cobra.Command {
	t := &imageSnapshot{c: c}
	cmd := &cobra.Command{
		Use:     "snapshot [-q] [-U] [-l | -c NAME | -d NAME | -a NAME] [--image-opts] FILE",
		Short:   "List, take, delete or apply internal snapshots",
		Example: "  nbd-dataplane image snapshot -l disk.qcow2\n  nbd-dataplane image snapshot -c before disk.qcow2",
		Args:    oneImage,
		RunE:    func(cmd *cobra.Command, args []string) error { return t.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&t.list, "list", "l", false, "list them; this is what is done without any of the four")
	flags.StringVarP(&t.create, "create", "c", "", "take a snapshot `NAME`")
	flags.StringVarP(&t.remove, "delete", "d", "", "delete the snapshot `NAME`")
	flags.StringVarP(&t.apply, "apply", "a", "", "make the disk what it was at the snapshot `NAME`; what it is now is lost")
	t.add(c, cmd, "quiet force-share image-opts")
	return cmd
}

func (t *imageSnapshot) run(cmd *cobra.Command, path string) (err error) {
	var chosen []string
	for _, name := range []string{"list", "create", "delete", "apply"} {
		if cmd.Flags().Changed(name) {
			chosen = append(chosen, name)
		}
	}
	if len(chosen) > 1 {
		return failed(errors.New("Cannot mix '-l', '-a', '-c', '-d'"))
	}
	write := len(chosen) == 1 && chosen[0] != "list"
	file, err := t.openFile(path, write)
	if err != nil {
		return err
	}
	defer file.closing(path, &err)
	if file.format != "qcow2" {
		if !write {
			return nil // there are none
		}
		return t.outcome(chosen[0], syscall.ENOTSUP)
	}
	if !write {
		im, err := file.open(path, format.ForUse)
		if err == nil && len(im.Snapshots()) > 0 {
			t.print(im)
		}
		return err
	}
	im, err := file.openToChange(path, t.c.err)
	if err != nil {
		return err
	}
	return t.outcome(chosen[0], t.do(chosen[0], im))
}

func (t *imageSnapshot) print(im *offline.Image) {
	var all []snapshotInfo
	for _, s := range im.Snapshots() {
		all = append(all, describeSnapshot(&s))
	}
	writeSnapshots(t.c.out, all)
}

func (t *imageSnapshot) do(what string, im *offline.Image) error {
	switch what {
	case "create":
		return im.CreateSnapshot(t.create, now())
	case "delete":
		return im.DeleteSnapshot(t.remove)
	}
	return im.ApplySnapshot(t.apply)
}

// outcome words an error as qemu-img does.
func (t *imageSnapshot) outcome(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case what == "create":
		return failed(fmt.Errorf("Could not create snapshot '%s': %s", t.create, errnoText(err)))
	case what == "delete" && errors.Is(err, offline.ErrNoSnapshot):
		return failed(fmt.Errorf("Could not delete snapshot '%s': %w", t.remove, err))
	case what == "delete":
		return failed(fmt.Errorf("Could not delete snapshot '%s': %s", t.remove, errnoText(err)))
	case errors.Is(err, offline.ErrNoSnapshot):
		err = syscall.ENOENT
	}
	var refused *format.Error
	if errors.As(err, &refused) {
		return failed(fmt.Errorf("Could not apply snapshot '%s': %w", t.apply, refused))
	}
	return failed(fmt.Errorf("Could not apply snapshot '%s': Failed to load snapshot: %s", t.apply, pathText(err)))
}
