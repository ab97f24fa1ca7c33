package raw

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// syncFailure is the first failure to bring data to stable storage.
type syncFailure struct {
	doing string
	err   error
}

// Flush makes all writes that have returned durable.
func (f *File) Flush(t *blockcore.Task) error {
	if f.syncless || f.readOnly {
		return nil
	}
	return f.sync(t, "flush")
}

func (f *File) sync(t *blockcore.Task, doing string) error {
	if err := f.damage(doing); err != nil {
		return err
	}
	f.cleanedPages()
	y := f.syncs.begin()
	err := f.system.sync(t, f.fd)
	if err != nil {
		err = f.syncFailed(doing, err)
	}
	f.syncs.end(y)
	if err != nil {
		return err
	}
	f.settleSyncs(t)
	return f.damage(doing)
}

// damage returns the error of everything that promises durability after a sync has failed.
func (f *File) damage(doing string) error {
	d := f.damaged.Load()
	if d == nil {
		return nil
	}
	return fmt.Errorf("%s %s: an earlier %s failed (%v), so data written before may be lost; reopen the image: %w",
		doing, f.path, d.doing, d.err, unix.EIO)
}

// syncFailed records the failure and returns it as EIO: what matters is not why but that data may be lost.
func (f *File) syncFailed(doing string, err error) error {
	f.damaged.CompareAndSwap(nil, &syncFailure{doing: doing, err: err})
	return fmt.Errorf("%s %s: data written before may be lost (%v): %w", doing, f.path, err, unix.EIO)
}
