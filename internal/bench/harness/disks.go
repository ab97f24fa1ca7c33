package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/bench/server"
)

// disks are the qcow2 images of one layout: made once by qemu-img and qemu-io, and copied for each server. The zero value has none.
type disks struct {
	// Immutable.
	layout Layout
	dir    string // a directory for what is copied, and one for each server
	raw    *image // what they hold
}

const (
	topName  = "top.qcow2"
	original = "original"
	// overlayStep is how far apart an overlay has clusters of its own: enough that it has all L2 tables, so few that nearly all
	// reads go through to the end of the chain.
	overlayStep = 4 << 20
)

func (d *disks) top(k server.Kind) string { return filepath.Join(d.dir, k.Name, topName) }

func (d *disks) sizeBytes() int64 {
	if n := layouts[d.layout].sizeBytes; n > 0 {
		return n
	}
	return d.raw.sizeBytes
}

func (d *disks) remove() error {
	if d.dir == "" {
		return nil
	}
	return os.RemoveAll(d.dir)
}

// create makes the original and the copies.
func (d *disks) create(ctx context.Context, kinds []server.Kind) error {
	at := filepath.Join(d.dir, original)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := d.original(ctx, at); err != nil {
		return err
	}
	for _, k := range kinds {
		if err := copyPages(at, filepath.Join(d.dir, k.Name)); err != nil {
			return err
		}
	}
	return os.RemoveAll(at)
}

func (d *disks) original(ctx context.Context, dir string) error {
	rule := layouts[d.layout]
	switch {
	case rule.fresh:
		return nil
	case rule.stepBytes > 0:
		return d.sparse(ctx, dir, rule)
	case rule.overlays == 0:
		return run(ctx, dir, "", "qemu-img", "convert", "-q", "-O", "qcow2", d.raw.path, topName)
	}
	if err := run(ctx, dir, "", "qemu-img", "convert", "-q", "-O", "qcow2", d.raw.path, "base.qcow2"); err != nil {
		return err
	}
	below := "base.qcow2"
	for n := range rule.overlays {
		name := topName
		if n < rule.overlays-1 {
			name = fmt.Sprintf("overlay%d.qcow2", n+1)
		}
		if err := run(ctx, dir, "", "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, name); err != nil {
			return err
		}
		if err := scatter(ctx, dir, name, d.sizeBytes(), overlayStep, int64(n)<<16, 64<<10); err != nil {
			return err
		}
		below = name
	}
	return nil
}

// sparse makes an image with a block of data at each step.
func (d *disks) sparse(ctx context.Context, dir string, rule layoutRule) error {
	if err := run(ctx, dir, "", "qemu-img", "create", "-q", "-f", "qcow2", topName, strconv.FormatInt(rule.sizeBytes, 10)); err != nil {
		return err
	}
	return scatter(ctx, dir, topName, rule.sizeBytes, rule.stepBytes, 0, pageBytes)
}

// scatter writes n bytes at each step.
func scatter(ctx context.Context, dir, name string, sizeBytes, step, first, n int64) error {
	var script strings.Builder
	for at := first; at < sizeBytes; at += step {
		fmt.Fprintf(&script, "write -q -P 7 %d %d\n", at, n)
	}
	return run(ctx, dir, script.String(), "qemu-io", "-f", "qcow2", "--cache", "writeback", name)
}

// run runs a program; an error has what it said.
func run(ctx context.Context, dir, input, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// fillerBytes are written to what an empty image takes the place of. The first one to use memory of a virtual machine pays for its host's work; what
// was used before, and is free since a moment ago, is the same for all.
const fillerBytes = 640 << 20

func writeFiller(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	page := make([]byte, pageBytes)
	for at := int64(0); at < fillerBytes; at += pageBytes {
		if _, err := f.WriteAt(page, at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// renew begins a sample.
func (d *disks) renew(ctx context.Context, k server.Kind) error {
	if !layouts[d.layout].fresh {
		return nil
	}
	if err := writeFiller(d.top(k)); err != nil {
		return err
	}
	if err := os.Remove(d.top(k)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return run(ctx, filepath.Dir(d.top(k)), "", "qemu-img", "create", "-q", "-f", "qcow2", topName, strconv.FormatInt(d.sizeBytes(), 10))
}

// prepare brings all images into the page cache.
func (d *disks) prepare(kinds []server.Kind) error {
	for _, k := range kinds {
		names, err := filepath.Glob(filepath.Join(d.dir, k.Name, "*.qcow2"))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := warmFile(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func warmFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return warm(f)
}

// copyPages copies the files of a directory, a page at a time and without their holes; see pageBytes.
func copyPages(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyFile(filepath.Join(from, name.Name()), filepath.Join(to, name.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	if err := copyData(in, out); err != nil {
		return err
	}
	return out.Sync()
}

// copyData copies what is data.
func copyData(in, out *os.File) error {
	page := make([]byte, pageBytes)
	for at := int64(0); ; {
		begin, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if at, err = unix.Seek(int(in.Fd()), begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		for begin < at {
			n, err := in.ReadAt(page[:min(pageBytes, at-begin)], begin)
			if n == 0 {
				return err
			}
			if _, err := out.WriteAt(page[:n], begin); err != nil {
				return err
			}
			begin += int64(n)
		}
	}
}
