package main

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"nbd-dataplane/qmp"
)

// chardevsAbsent are the kinds of QEMU's that there are not here. A monitor cannot work over udp: qemu-storage-daemon 7.2.22 crashes on the first
// datagram that it is sent.
var chardevsAbsent = []string{"udp", "parallel", "memory", "ringbuf", "mux"}

// makeFileChardev opens a file that takes what a monitor says. Nobody can ask it anything there: it greets, and that is all, as QEMU's.
func makeFileChardev(v qmp.Value) (*chardev, error) {
	var a struct {
		Path   *string `qmp:"path"`
		Append bool    `qmp:"append,optional"`
	}
	if _, err := v.Take(&a); err != nil {
		return nil, err
	}
	if a.Path == nil {
		return nil, qmp.Errorf("chardev: file: no filename given")
	}
	mode := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if a.Append {
		mode = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	f, err := os.OpenFile(*a.Path, mode, 0o600)
	if err != nil {
		return nil, cannotOpen(*a.Path, err)
	}
	return &chardev{stream: &mute{file: f, closed: make(chan struct{})}}, nil
}

// mute is a file that is written to; a read of it waits until it is closed.
type mute struct {
	// Immutable.
	file   *os.File
	closed chan struct{} // closed by Close

	// Safe from anywhere.
	once sync.Once
}

func (m *mute) Read([]byte) (int, error) {
	<-m.closed
	return 0, io.EOF
}

func (m *mute) Write(p []byte) (int, error) { return m.file.Write(p) }

func (m *mute) Close() (err error) {
	m.once.Do(func() {
		close(m.closed)
		err = m.file.Close()
	})
	return err
}

// makePipeChardev opens PATH.in and PATH.out, two pipes with names, or PATH for both directions. They are opened for both as QEMU does, so that
// a client may go and another one come.
func makePipeChardev(v qmp.Value) (*chardev, error) {
	var a struct {
		Path *string `qmp:"path"`
	}
	if _, err := v.Take(&a); err != nil {
		return nil, err
	}
	if a.Path == nil {
		return nil, qmp.Errorf("chardev: pipe: no device path given")
	}
	in, errIn := openPipe(*a.Path + ".in")
	out, errOut := openPipe(*a.Path + ".out")
	if errIn == nil && errOut == nil {
		return &chardev{stream: twoPipes{in, out}}, nil
	}
	in.Close() // nil is closed already
	out.Close()
	both, err := openPipe(*a.Path)
	if err != nil {
		return nil, cannotOpen(*a.Path, err)
	}
	return &chardev{stream: both}, nil
}

// openPipe opens without waiting for a reader or a writer, so that closing ends whoever waits.
func openPipe(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0) }

func cannotOpen(path string, err error) error {
	return qmp.Errorf("Could not open '%s': %s", path, strerror(errnoOf(err)))
}

// twoPipes are read from one and written to the other.
type twoPipes struct{ in, out *os.File }

func (p twoPipes) Read(b []byte) (int, error)  { return p.in.Read(b) }
func (p twoPipes) Write(b []byte) (int, error) { return p.out.Write(b) }

func (p twoPipes) Close() error {
	p.in.Close()
	return p.out.Close()
}
