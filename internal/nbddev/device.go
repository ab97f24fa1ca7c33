package nbddev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SectorBytes is what the kernel counts the size of a device in, whatever its block size is.
const SectorBytes = 512

// What a caller may want to tell apart. A device that is not there is fs.ErrNotExist, and a lack of rights fs.ErrPermission.
var (
	ErrOther        = errors.New("not an nbd device")
	ErrPartition    = errors.New("a partition of an nbd device")
	ErrNotConnected = errors.New("nothing is connected to the device")
	ErrIgnored      = errors.New("the kernel took the command and kept the size")
	ErrNamespace    = errors.New("this network namespace has no netlink family \"nbd\", and the ioctl is refused")
	ErrRefused      = errors.New("the kernel refused, by netlink and by ioctl")
)

// Device is an nbd device of this kernel.
type Device struct {
	// Immutable.
	path  string // what it is opened by
	name  string // the kernel's name: nbd0
	index uint32
}

// Find returns the device behind the name of a file.
func Find(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Device{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, ErrOther
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return Device{}, fmt.Errorf("look the device up in /sys: %w", err)
	}
	return at(path, link)
}

// at makes a device of where /sys keeps it: .../block/nbd0, or .../block/nbd0/nbd0p1 for a partition.
func at(path, link string) (Device, error) {
	name := filepath.Base(link)
	index, isDevice := indexOf(name)
	_, isPart := indexOf(filepath.Base(filepath.Dir(link)))
	switch {
	case isDevice:
		return Device{path, name, index}, nil
	case isPart:
		return Device{}, ErrPartition
	}
	return Device{}, ErrOther
}

func indexOf(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, "nbd")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil
}

// Connected returns the names in /dev of the devices that something is connected to.
func Connected() []string {
	files, _ := filepath.Glob("/sys/block/nbd*/pid") // the pattern is a good one
	var paths []string
	for _, file := range files {
		paths = append(paths, "/dev/"+filepath.Base(filepath.Dir(file)))
	}
	return paths
}

// attribute is a file of the device in /sys.
func (d Device) attribute(name string) string { return "/sys/block/" + d.name + "/" + name }

// Size is what the kernel believes, in bytes.
func (d Device) Size() (int64, error) {
	if _, err := os.Stat(d.attribute("pid")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, ErrNotConnected
		}
		return 0, err
	}
	text, err := os.ReadFile(d.attribute("size"))
	if err != nil {
		return 0, err
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", d.attribute("size"), err)
	}
	return sectors * SectorBytes, nil
}

// SetSize tells the kernel of the size that the export has now. It returns what the kernel made of it: whole sectors.
func (d Device) SetSize(sizeBytes int64) (int64, error) {
	was, err := d.Size()
	if err != nil {
		return 0, err
	}
	if err := d.tell(sizeBytes); err != nil {
		return was, err
	}
	is, err := d.Size()
	if err == nil && is != sizeBytes-sizeBytes%SectorBytes {
		err = ErrIgnored
	}
	return is, err
}

// tell tries netlink, and then the ioctl. fs.ErrNotExist of the former is a family that is not here.
func (d Device) tell(sizeBytes int64) error {
	byNetlink := d.reconfigure(sizeBytes)
	if !errors.Is(byNetlink, unix.EINVAL) && !errors.Is(byNetlink, fs.ErrNotExist) {
		return byNetlink
	}
	byIoctl := d.setSize(sizeBytes)
	switch {
	case !errors.Is(byIoctl, unix.EINVAL):
		return byIoctl
	case errors.Is(byNetlink, fs.ErrNotExist):
		return ErrNamespace
	}
	return ErrRefused
}

func (d Device) setSize(sizeBytes int64) error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), ioctlSetSize, int(sizeBytes)); err != nil {
		return fmt.Errorf("ioctl NBD_SET_SIZE: %w", err)
	}
	return nil
}
