package nbd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// offersFile is where Offers lasts. Each version of it is a file of its own, written beside the one before and renamed over it when it is on the disk, so
// that whoever comes next finds the one or the other, whole. It is locked for as long as the process lives: the lock is that of the version
// in place, and the next one is locked before it takes that place.
type offersFile struct {
	// Immutable.
	path string

	// Guarded by mu.
	mu   sync.Mutex
	held *os.File // the version in place, locked
}

// ErrOffersHeld: another process has the file.
var ErrOffersHeld = errors.New("another process uses it")

// OpenOffers returns what a file remembers, and makes the file if there is none. It remembers there what is offered from now on; warn, which
// must not block, is told when that fails and nothing can be refused for it. Close ends it.
func OpenOffers(path string, warn func(error)) (*Offers, error) {
	f, err := openOffersFile(path)
	if err != nil {
		return nil, err
	}
	o := NewOffers()
	o.file, o.warn = f, warn
	if err := o.load(); err != nil {
		f.held.Close()
		return nil, err
	}
	return o, nil
}

// replacedMax is how often a file that is replaced just when we open it is opened again.
const replacedMax = 10

func openOffersFile(path string) (*offersFile, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // a rename would replace the link
	}
	for range replacedMax {
		held, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, withoutPath(err)
		}
		current, err := lockOffers(held, path)
		if err == nil && current {
			return &offersFile{path: path, held: held}, nil
		}
		held.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, ErrOffersHeld
}

// lockOffers locks a file that has just been opened, and reports whether it is still the one in place.
func lockOffers(f *os.File, path string) (current bool, err error) {
	opened, err := f.Stat()
	if err != nil {
		return false, withoutPath(err)
	}
	if !opened.Mode().IsRegular() {
		return false, errors.New("it is not a regular file")
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, ErrOffersHeld
	case err != nil:
		return false, fmt.Errorf("lock: %w", err)
	}
	inPlace, err := os.Stat(path)
	return err == nil && os.SameFile(opened, inPlace), nil
}

// load reads the file. A new one is written at once, so that a place where nothing can be written is found before it matters.
func (o *Offers) load() error {
	text, err := io.ReadAll(io.LimitReader(o.file.held, offersFileMax+1))
	if err != nil {
		return withoutPath(err)
	}
	if len(text) == 0 {
		return o.save()
	}
	records, err := decodeOffers(text)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range records {
		o.put(r.name, r.offer)
	}
	o.stale = false
	return nil
}

// save writes what is remembered, if there is a file and it misses something.
func (o *Offers) save() error {
	if o.file == nil {
		return nil
	}
	o.file.mu.Lock()
	defer o.file.mu.Unlock()
	o.mu.Lock()
	o.stale = false
	text := encodeOffers(o.records())
	o.mu.Unlock()
	err := o.file.replace(text)
	if err != nil {
		o.mu.Lock()
		o.stale = true
		o.mu.Unlock()
	}
	return err
}

// saveLater has saveLoop write what the file misses. o.mu is held.
func (o *Offers) saveLater() {
	o.stale = true
	if o.file == nil || o.saving {
		return
	}
	o.saving = true
	o.savers.Add(1)
	go o.saveLoop()
}

// saveLoop writes until the file misses nothing, or cannot be written. It ends then.
func (o *Offers) saveLoop() {
	defer o.savers.Done()
	for o.goesOnSaving() {
		if err := o.save(); err != nil {
			o.mu.Lock()
			o.saving = false
			o.mu.Unlock()
			o.warn(fmt.Errorf("%s: a new size cannot be remembered: %w", o.file.path, err))
			return
		}
	}
}

func (o *Offers) goesOnSaving() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.saving = o.stale
	return o.saving
}

// Close writes what the file misses, and lets go of it. Nothing is added afterwards.
func (o *Offers) Close() error {
	if o.file == nil {
		return nil
	}
	o.savers.Wait()
	o.mu.Lock()
	stale := o.stale
	o.mu.Unlock()
	var err error
	if stale {
		if err = o.save(); err != nil {
			err = fmt.Errorf("%s: what was offered cannot be remembered: %w", o.file.path, err)
		}
	}
	return errors.Join(err, o.file.held.Close())
}

// replace puts a new version in place, on the disk. f.mu is held.
func (f *offersFile) replace(text []byte) error {
	mode := os.FileMode(0o600)
	if info, err := f.held.Stat(); err == nil {
		mode = info.Mode().Perm()
	}
	// What is in the way was left by a process that was killed: nobody else writes here without the lock.
	next := f.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return withoutPath(err)
	}
	file, err := writeOffers(next, mode, text)
	if err == nil {
		err = withoutPath(os.Rename(next, f.path))
	}
	if err != nil {
		if file != nil {
			file.Close()
			os.Remove(next)
		}
		return err
	}
	f.held.Close()
	f.held = file
	return syncDirectory(filepath.Dir(f.path))
}

// writeOffers makes a file, locked, and has it on the disk. It returns the file also when that failed half way.
func writeOffers(path string, mode os.FileMode, text []byte) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, withoutPath(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return f, fmt.Errorf("lock: %w", err)
	}
	for _, step := range []func() error{
		func() error { return f.Chmod(mode) },
		func() error { _, err := f.Write(text); return err },
		f.Sync,
	} {
		if err := step(); err != nil {
			return f, withoutPath(err)
		}
	}
	return f, nil
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return withoutPath(err)
	}
	defer d.Close()
	return withoutPath(d.Sync())
}

// withoutPath is an error of a file without its name, which whoever asked for the file knows.
func withoutPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	return err
}
