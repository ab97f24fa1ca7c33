//go:build ganesha

package nfstest

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Goal: what is served is NFS, as a client of others understands it. Method: qemu-io and qemu-img, whose nfs driver is
// libnfs, make a file, write, flush, read back, resize; what they did is looked at from inside.
func TestQEMUAsClient(t *testing.T) {
	s := Start(t, Options{OwnAddress: true})
	url := s.StockURL("/export/disk.img")
	run(t, "qemu-img", "create", "-q", "-f", "raw", url, "8M")
	if got := len(s.Stable("/export/disk.img")); got != 8<<20 {
		t.Fatalf("the file has %d bytes", got)
	}
	run(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 64k 192k", "-c", "flush", "-c", "read -P 0x5a 64k 192k", "-c", "read -P 0 256k 4k", url)
	if stable := s.Stable("/export/disk.img"); !bytes.Equal(stable[64<<10:256<<10], bytes.Repeat([]byte{0x5a}, 192<<10)) {
		t.Error("what was flushed is not stable")
	}
	run(t, "qemu-img", "resize", "-q", "-f", "raw", url, "9M")
	out := run(t, "qemu-img", "info", "-f", "raw", url)
	if !strings.Contains(out, "9437184 bytes") {
		t.Errorf("qemu-img info: %s", out)
	}
	for _, proc := range []Proc{Mnt, Lookup, GetAttr, Create, SetAttr, Read, Write, Commit} {
		if s.Calls(proc) == 0 {
			t.Errorf("no %s among %v", proc, s.Log())
		}
	}
}

// Goal: an export that is denied, a file that is not there and one without permission are told apart. Method: what
// qemu-img says of each.
func TestQEMUIsRefused(t *testing.T) {
	s := Start(t, Options{OwnAddress: true, Exports: []Export{{Path: "/export"}, {Path: "/secret", Denied: true}}})
	s.Put("/export/private.img", File{SizeBytes: 4096, Mode: 0o600, UID: 4321})
	for file, want := range map[string]string{
		"/secret/disk.img":    "ACCES",
		"/export/nothing.img": "NOENT",
		"/export/private.img": "ACCES",
	} {
		url := s.StockURL(file) + "?uid=1234&gid=1234"
		out, err := command(t, "qemu-img", "info", "-f", "raw", url)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v %s", file, err, out)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return out
}

func command(t *testing.T, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}
