package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// pidFile holds the process id, and a lock on it for as long as the process lives: so a file that was left behind tells
// nobody that a server is running.
type pidFile struct {
	// Immutable.
	path string
	file *os.File
}

func writePIDFile(path string) (*pidFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, pidError(path, "create", err)
	}
	// The same kind of lock as QEMU's, so that each respects the other's.
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		return nil, wrong(fmt.Sprintf("--pid-file %s: another process holds it; stop that one or choose another path", path),
			"Cannot lock pid file: "+strerror(errnoOf(err)))
	}
	p := &pidFile{path: lasting(path), file: f}
	if err := p.write(); err != nil {
		p.remove()
		return nil, pidError(path, "write", err)
	}
	return p, nil
}

// lasting is a path that stays right when --fork changes the working directory.
func lasting(path string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return absolute
}

func (p *pidFile) write() error {
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// remove removes the file, which is locked, so nobody else has made it theirs.
func (p *pidFile) remove() {
	os.Remove(p.path)
	p.file.Close()
}

func pidError(path, doing string, err error) error {
	errno := errnoOf(err)
	return wrong(fmt.Sprintf("--pid-file %s: %s: %v; choose another path", path, doing, errno), fmt.Sprintf("Could not %s '%s': %s", doing, path, strerror(errno)))
}

func errnoOf(err error) syscall.Errno {
	errno := syscall.EIO
	errors.As(err, &errno)
	return errno
}
