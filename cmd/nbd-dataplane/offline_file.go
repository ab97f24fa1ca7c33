package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/backends/raw"
)

// storage is what an image lies in: a file of this machine, or one on an NFS server.
type storage interface {
	offline.File
	io.Closer
	// hold refuses what is no disk, and locks it against others unless it is shared with them.
	hold(write, share bool) error
	// usedBytes is how much space it takes.
	usedBytes() int64
	// holes tells which parts between two offsets are holes. What is behind the end of the file is one; where that cannot be told there are none.
	holes(from, to int64, visit func(at, length int64, hole bool) error) error
	// discard takes away a file that was made in vain. A device stays.
	discard()
}

// openStorage opens a file by the name of an image. share is to have no locks there where they are taken now, and not by hold.
func openStorage(name string, write, share bool, warn func(string)) (storage, error) {
	if nfs.IsURL(name) {
		return openNFSFile(name, write, share, warn)
	}
	how := os.O_RDONLY
	if write {
		how = os.O_RDWR
	}
	return openLocal(name, how)
}

// newStorage opens a file for writing and makes it if it is not there, which made reports. An exclusive one must not be there: that is fs.ErrExist.
func newStorage(name string, exclusive bool, warn func(string)) (s storage, made bool, err error) {
	if nfs.IsURL(name) {
		return newNFSFile(name, exclusive, warn)
	}
	f, err := openLocal(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if exclusive || !errors.Is(err, fs.ErrExist) {
		return f, err == nil, err
	}
	f, err = openLocal(name, os.O_RDWR|os.O_CREATE)
	return f, false, err
}

// removeStorage removes a file.
func removeStorage(name string) error {
	if nfs.IsURL(name) {
		options, err := nfsURL(name, func([]string) {})
		if err != nil {
			return err
		}
		return nfs.Remove(options)
	}
	return os.Remove(strings.TrimPrefix(name, "file:"))
}

// openText is why a file could not be opened, without its name.
func openText(name string, err error) string {
	if bad, ok := errors.AsType[*nfs.OpenError](err); ok {
		return bad.Why()
	}
	return strings.TrimPrefix(pathText(err), name+": ")
}

// checkSpace refuses what cannot be set apart.
func checkSpace(name string, how offline.Preallocation) error {
	if nfs.IsURL(name) && how == offline.PreallocationFalloc {
		return fmt.Errorf("Unsupported preallocation mode '%v': over NFS no space can be set apart; 'full' writes zeroes instead", how)
	}
	return nil
}

// sameFile reports whether two names are of one file.
func sameFile(a, b string) bool {
	if nfs.IsURL(a) || nfs.IsURL(b) {
		one, _, errA := nfs.ParseURL(a)
		other, _, errB := nfs.ParseURL(b)
		return errA == nil && errB == nil && one.Host == other.Host && path.Clean(one.Path) == path.Clean(other.Path)
	}
	one, err := os.Stat(a)
	if err != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// localFile is a file, or a device, of this machine.
type localFile struct {
	offline.Disk
	lock io.Closer // nil = none
}

func openLocal(name string, how int) (storage, error) {
	f, err := os.OpenFile(strings.TrimPrefix(name, "file:"), how, 0o644)
	if err != nil {
		return nil, err
	}
	return &localFile{Disk: offline.Disk{File: f}}, nil
}

func (f *localFile) hold(write, share bool) error {
	if st, err := f.Stat(); err != nil || st.IsDir() {
		return errors.New("The 'file' driver requires 'filename' to be a regular file")
	}
	if share {
		return nil
	}
	held, err := raw.Hold(f.Disk.File, write)
	if err == nil {
		f.lock = held
	}
	return err
}

// Close gives the locks back and closes the file.
func (f *localFile) Close() error {
	if f.lock != nil {
		f.lock.Close()
	}
	return f.Disk.Close()
}

func (f *localFile) usedBytes() int64 {
	st, err := f.Stat()
	if err != nil {
		return 0
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Blocks * sectorBytes
	}
	return 0
}

func (f *localFile) holes(from, to int64, visit func(at, length int64, hole bool) error) error {
	return holes(f.Disk.File, from, to, visit)
}

func (f *localFile) discard() {
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		_ = os.Remove(f.Name())
	}
}
