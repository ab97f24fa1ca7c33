package nfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
)

// A process that is killed leaves its locks at the server, which does not notice: it would have to be told by a status monitor. So each owner of locks has a note in
// a directory of this host, made before the first lock and removed after the last, with a lock of the kernel's on it that ends with the process. Who
// opens the file next gives back what a note says that is nobody's any more.
//
// Nobody's is a note without that lock from this boot of this machine, or from an earlier one of it. A note that is not there, a directory that
// other containers do not see, and other machines are never taken for dead: then the lock stays, and the disk is refused.

const (
	// noteBytesMax bounds a note: the longest name of a file, its handle and its owner.
	noteBytesMax = 8 << 10
	// notesMax bounds how many are looked at.
	notesMax = 10_000
	// numberTries bounds how often a number is chosen that somebody has.
	numberTries = 100
	// numberBase keeps our numbers apart from those of kernels and of process ids, which begin at the lower end.
	numberBase = 0x40000000
)

// note is what is written down.
type note struct {
	URL     string `json:"file"`
	Handle  []byte `json:"handle"`
	Caller  string `json:"caller"`
	Number  uint32 `json:"number"`
	Owner   string `json:"owner"`
	PID     int    `json:"pid"`
	Machine string `json:"machine"`
	Boot    string `json:"boot"`
}

// heldNote is a note of ours.
type heldNote struct{ file *os.File }

// boot and machine are which run of which machine this is; "" = nobody knows.
func bootAndMachine() (boot, machine string) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	return read("/proc/sys/kernel/random/boot_id"), read("/etc/machine-id")
}

// newOwner chooses the owner of locks, and writes a note of it into dir if there is one. Without a note the owner is as good.
func newOwner(dir, url string, h wire.Handle) (*wire.LockOwner, *heldNote, error) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	host = host[:min(len(host), wire.LockCallerBytesMax)]
	if dir == "" {
		return randomOwner(host), nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return randomOwner(host), nil, err
	}
	for range numberTries {
		owner := randomOwner(host)
		n, err := writeNote(dir, url, h, owner)
		switch {
		case err == nil:
			return owner, n, nil
		case !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.EAGAIN): // then somebody has it, or is looking at it
			return owner, nil, err
		}
	}
	return randomOwner(host), nil, fmt.Errorf("%d numbers of owners in %s are taken", numberTries, dir)
}

// randomOwner is one that hardly anybody else is.
func randomOwner(host string) *wire.LockOwner {
	number := numberBase | rand.Uint32N(numberBase)
	text := fmt.Sprintf("%08x.%d.nbd-dataplane@%s", number, os.Getpid(), host)
	return &wire.LockOwner{Caller: host, Number: number, Name: []byte(text[:min(len(text), wire.LockOwnerBytesMax)])}
}

func noteName(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x", number))
}

// writeNote makes a note, which is on stable storage when it returns.
func writeNote(dir, url string, h wire.Handle, o *wire.LockOwner) (*heldNote, error) {
	n := note{URL: url, Handle: h, Caller: o.Caller, Number: o.Number, Owner: string(o.Name), PID: os.Getpid()}
	n.Boot, n.Machine = bootAndMachine()
	text, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(noteName(dir, o.Number), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	held := &heldNote{f}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = f.Write(append(text, '\n'))
	}
	if err == nil {
		err = errors.Join(f.Sync(), syncDirectory(dir))
	}
	if err != nil {
		held.remove()
		return nil, err
	}
	return held, nil
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// remove takes a note away: its owner has no lock any more.
func (n *heldNote) remove() {
	if n != nil {
		_ = os.Remove(n.file.Name()) // one that stays is found to be nobody's
		n.file.Close()
	}
}

// leave lets a note be nobody's: what its owner had may still be at the server.
func (n *heldNote) leave() {
	if n != nil {
		n.file.Close()
	}
}

// abandoned returns the notes of a file that are nobody's any more, locked. They are to be removed, or left.
func abandoned(dir string, h wire.Handle) (notes []*heldNote, owners []*wire.LockOwner) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(notesMax)
	for _, name := range names {
		if held, n := openAbandoned(filepath.Join(dir, name)); held != nil {
			if bytes.Equal(n.Handle, h) {
				notes = append(notes, held)
				owners = append(owners, &wire.LockOwner{Caller: n.Caller, Name: []byte(n.Owner), Number: n.Number})
				continue
			}
			held.leave()
		}
	}
	return notes, owners
}

// openAbandoned locks a note and reads it; nil if it is somebody's, or no note.
func openAbandoned(name string) (*heldNote, *note) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil
	}
	held := &heldNote{f}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		var n note
		text, err := io.ReadAll(io.LimitReader(f, noteBytesMax))
		if err == nil && json.Unmarshal(text, &n) == nil && n.isOurs() {
			return held, &n
		}
	}
	held.leave()
	return nil, nil
}

// isOurs reports whether a note that no process has locked was made on this machine, whose processes alone can be told to be gone.
func (n *note) isOurs() bool {
	boot, machine := bootAndMachine()
	return boot != "" && n.Boot == boot || machine != "" && n.Machine == machine
}
