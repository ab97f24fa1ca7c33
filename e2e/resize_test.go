//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nbd-dataplane/interop/subject"
)

// The sizes of a disk that is resized.
const (
	smallBytes  = 64 << 20
	mediumBytes = 128 << 20
	largeBytes  = 192 << 20
	shrunkBytes = 160 << 20 // the last one
)

// clientMax is how long a client may stay away that is to reconnect at its guest's next write; it takes less than a second.
const clientMax = 2 * time.Minute

func sizeFacts() map[string]string {
	return map[string]string{
		"small": strconv.Itoa(smallBytes), "medium": strconv.Itoa(mediumBytes), "large": strconv.Itoa(largeBytes), "shrunk": strconv.Itoa(shrunkBytes),
	}
}

// Goal: the kernel's nbd device takes a resize over without being detached, however it was connected. Method: the guest writes to a
// file system on /dev/nbd0 while the host resizes the export; device-size tells the kernel, the file system grows and is filled; and
// what nobody uses is shrunk.
func TestResizeReachesKernel(t *testing.T) {
	r := newResized(t)
	vm, err := newGuest(r.root, t.TempDir(), static(t, r.root, "nbd-dataplane", "./cmd/nbd-dataplane"))
	if err != nil {
		t.Fatal(err)
	}
	server := r.serve(t, subject.Options{TCP: true})
	facts := sizeFacts()
	facts["port"] = strconv.Itoa(server.Port)
	vm.converse(t, "resize-nbd", facts, func(what string) {
		switch what {
		case "netlink":
			r.ctl(t, "resize", exportName, strconv.Itoa(mediumBytes))
		case "ioctl":
			r.ctl(t, "resize", exportName, strconv.Itoa(largeBytes))
		case "shrink":
			r.ctl(t, "resize", exportName, strconv.Itoa(shrunkBytes), "--shrink")
		}
	}, "-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile=")
}

// Goal: a virtual machine learns of a resize by the steps that docs/operations.md names. Method: the guest writes to a file system
// on QEMU's nbd: drive while the host resizes the export, throws QEMU out, waits until it is back, and has QEMU's monitor take the new size.
func TestResizeReachesQEMUGuest(t *testing.T) {
	r := newResized(t)
	vm, err := newGuest(r.root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := r.serve(t, subject.Options{})
	monitor := filepath.Join(r.dir, "qmp")
	vm.converse(t, "resize-qemu", sizeFacts(), func(string) {
		size := strconv.Itoa(mediumBytes)
		r.ctl(t, "resize", exportName, size)
		if text, err := r.try("--control", monitor, "qmp", "block_resize", "node-name=disk0", "size="+size); err == nil || !strings.Contains(text, "Cannot grow NBD nodes") {
			t.Errorf("block_resize before QEMU has reconnected: %v, %s", err, text)
		}
		was := r.client(t)
		r.ctl(t, "disconnect", fmt.Sprint(was))
		r.awaitOtherClient(t, was)
		r.ctl(t, "--control", monitor, "qmp", "block_resize", "node-name=disk0", "size="+size)
	},
		"-blockdev", "driver=nbd,node-name=nbd0,server.type=unix,server.path="+server.Socket+",export="+exportName+",reconnect-delay=60",
		"-blockdev", "driver=raw,node-name=disk0,file=nbd0",
		"-device", "virtio-blk-pci,drive=disk0",
		"-qmp", "unix:"+monitor+",server=on,wait=off")
}

const exportName = "e2e"

// resized is a disk whose size changes, with the server's control socket.
type resized struct {
	// Immutable.
	root    string
	dir     string // with a short name, for sockets
	program subject.Program
}

func newResized(t *testing.T) resized {
	t.Helper()
	root, err := subject.Root()
	if err != nil {
		t.Fatal(err)
	}
	program, err := subject.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return resized{root, dir, program}
}

func (r resized) control() string { return filepath.Join(r.dir, "ctl") }

// serve starts the server of a new disk of smallBytes.
func (r resized) serve(t *testing.T, o subject.Options) *subject.Server {
	t.Helper()
	o.File = filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(o.File, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(o.File, smallBytes); err != nil {
		t.Fatal(err)
	}
	o.Name, o.Args = exportName, []string{"-f", "raw", "--control", r.control()}
	return r.program.Start(t, o)
}

// try runs ctl and returns what it printed.
func (r resized) try(args ...string) (string, error) {
	cmd := exec.Command(r.program.Path(), append([]string{"ctl"}, args...)...)
	cmd.Env = append(os.Environ(), "NBD_DATAPLANE_CONTROL="+r.control())
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (r resized) ctl(t *testing.T, args ...string) string {
	t.Helper()
	text, err := r.try(args...)
	t.Logf("ctl %s: %s", strings.Join(args, " "), strings.TrimSpace(text))
	if err != nil {
		t.Errorf("ctl %v: %v\n%s", args, err, text)
	}
	return text
}

// client is the id of the only client, or 0.
func (r resized) client(t *testing.T) uint64 {
	t.Helper()
	text, err := r.try("--json", "clients")
	var clients []struct {
		ID uint64 `json:"id"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &clients)
	}
	if err != nil || len(clients) > 1 {
		t.Errorf("ctl clients: %v\n%s", err, text)
	}
	if len(clients) == 0 {
		return 0
	}
	return clients[0].ID
}

// awaitOtherClient returns when the client is back under another id.
func (r resized) awaitOtherClient(t *testing.T, was uint64) {
	t.Helper()
	for deadline := time.Now().Add(clientMax); time.Now().Before(deadline); {
		if now := r.client(t); now != 0 && now != was {
			return
		}
	}
	t.Errorf("client %d did not come back", was)
}
