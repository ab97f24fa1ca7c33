package main

import (
	"fmt"
	"io"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
)

// openToChange opens an image that is to be changed. One that was not closed is repaired before, as a server would do it; what was wrong is told to w.
func (f *imageFile) openToChange(path string, w io.Writer) (*offline.Image, error) {
	im, err := f.open(path, format.ForUse)
	if err != nil {
		return nil, err
	}
	if h := im.Header(); h.Has(format.IncompatibleDirty) && !h.Has(format.IncompatibleCorrupt) && h.Crypt == format.CryptNone {
		if err := f.repair(path, w); err != nil {
			return nil, err
		}
		if im, err = f.open(path, format.ForUse); err != nil {
			return nil, err
		}
	}
	if err := im.BeginChange(); err != nil {
		return nil, couldNot(path, err)
	}
	return im, nil
}

// repair puts right what can be.
func (f *imageFile) repair(path string, w io.Writer) error {
	im, err := f.open(path, format.ForCheck)
	if err != nil {
		return err
	}
	_, err = im.Check(offline.CheckOptions{Repair: offline.RepairAll, Say: func(line string) { fmt.Fprintln(w, line) }})
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return couldNot(path, fmt.Errorf("Could not repair dirty image: %s", pathText(err)))
	}
	return nil
}
