package nbd

import "golang.org/x/sys/unix"

// narrow makes the socket of a connection take little at once.
func (h *house) narrow(id uint64) {
	h.t.Helper()
	h.onLoop(func() {
		if err := unix.SetsockoptInt(h.conn(id).fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10); err != nil {
			h.t.Error(err)
		}
	})
}

// unread is how many bytes wait in a socket to be read.
func unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return -1
	}
	return n
}
