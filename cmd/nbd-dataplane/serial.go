package main

import (
	"os"

	"golang.org/x/sys/unix"

	"nbd-dataplane/qmp"
)

// makeSerialChardev opens a serial line, 8 bits without parity at 115200 baud. What is no terminal is used as it is, as QEMU does.
func makeSerialChardev(v qmp.Value) (*chardev, error) {
	var a struct {
		Path *string `qmp:"path"`
	}
	if _, err := v.Take(&a); err != nil {
		return nil, err
	}
	if a.Path == nil {
		return nil, qmp.Errorf("chardev: serial/tty: no device path given")
	}
	fd, err := unix.Open(*a.Path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, cannotOpen(*a.Path, err)
	}
	_ = makeRaw(fd, unix.B115200) // fails where it is no terminal
	return &chardev{stream: os.NewFile(uintptr(fd), *a.Path)}, nil
}

// makeRaw has a terminal pass bytes as they are, at a speed; 0 = as it is.
func makeRaw(fd int, speed uint32) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB|unix.CSTOPB) | unix.CS8
	if speed != 0 {
		t.Cflag = t.Cflag&^(unix.CBAUD|unix.CRTSCTS) | speed | unix.CREAD | unix.CLOCAL
	}
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
