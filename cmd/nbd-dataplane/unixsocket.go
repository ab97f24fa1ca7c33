package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// socketPathMax is how much of a path fits into a socket's address, with its closing zero byte. unix(7).
const socketPathMax = 108

// unixSocket is the name of our listening socket in the file system.
//
// INVARIANT: only the socket that we made is removed. A successor may have put its own in the same place while we were
// stopping, and clients are on their way to it.
type unixSocket struct {
	// Immutable.
	path string
	made fs.FileInfo // as it was when we had made it
}

// listenUnix makes a socket at path. One that nobody listens at, left behind by a server that died, is replaced. A living
// one is replaced only with takeOver, as qemu-nbd does, so that a successor can start before its predecessor stops.
func listenUnix(path string, takeOver bool) (*place, error) {
	if len(path) >= socketPathMax {
		return nil, wrong(fmt.Sprintf("-k/--socket %s: the path has %d bytes and a socket's must have less than %d; choose a shorter one", path, len(path), socketPathMax),
			fmt.Sprintf("UNIX socket path '%s' is too long\nPath must be less than %d bytes", path, socketPathMax))
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := clearPath(path, takeOver); err != nil {
			return nil, err
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, unixError(path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, unixError(path, err)
	}
	return &place{listener: l, network: "unix", path: path, socket: &unixSocket{path: path, made: made}}, nil
}

// clearPath removes what is in the way, if it may be removed.
func clearPath(path string, takeOver bool) error {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	switch {
	case err != nil:
		return unixError(path, err)
	case there.Mode()&fs.ModeSocket == 0:
		return wrong(fmt.Sprintf("-k/--socket %s: a file that is no socket is in the way; remove it or choose another path", path),
			fmt.Sprintf("Failed to bind socket to %s: Address already in use", path))
	case !takeOver && isAlive(path):
		return wrong(fmt.Sprintf("-k/--socket %s: Address already in use; stop the server that listens there or choose another path", path),
			fmt.Sprintf("Failed to bind socket to %s: Address already in use", path))
	}
	return (&unixSocket{path: path, made: there}).remove()
}

// isAlive says that somebody listens. Only a refused connection is proof that nobody does.
func isAlive(path string) bool {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return true
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// remove removes the socket unless another one has taken its place.
func (s *unixSocket) remove() error {
	now, err := os.Lstat(s.path)
	if err != nil || !sameSocket(now, s.made) {
		return nil
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unixError(s.path, err)
	}
	return nil
}

// sameSocket compares inodes, and when they were made: file systems hand a number out again at once.
func sameSocket(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime())
}
