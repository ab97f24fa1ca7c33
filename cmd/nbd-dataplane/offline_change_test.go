package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: an image that was not closed is repaired before it is changed, as with qemu-img. Method: qemu-io is killed with lazy refcounts; each command that changes
// images then does so, and qemu-img finds the image clean.
func TestDirtyImagesAreRepairedBeforeAChange(t *testing.T) {
	program := asProgram(t, programName)
	for _, args := range [][]string{
		{"snapshot", "-c", "s", "image"},
		{"resize", "image", "+1M"},
		{"bitmap", "--add", "image", "b"},
		{"rebase", "-u", "-b", "", "image"},
	} {
		t.Run(args[0], func(t *testing.T) {
			dir := t.TempDir()
			qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", "image", "4M")
			qcowtest.Stock(t, dir, "qemu-io", "-f", "qcow2", "-c", "write 0 1M", "-c", "flush", "-c", "sigraise 9", "image")
			if _, ran := qcowtest.Check(t, filepath.Join(dir, "image"), ""); ran.Status != 2 {
				t.Fatalf("the image is not dirty: %+v", ran)
			}
			if ran := qcowtest.Stock(t, dir, program, append([]string{"image"}, args...)...); ran.Status != 0 {
				t.Fatalf("%+v", ran)
			}
			qcowtest.MustBeClean(t, filepath.Join(dir, "image"), false)
		})
	}
}

// Goal: what could not be made is not left behind, and options that cannot be are refused. Method: a name that the header has no room for, and no cluster size.
func TestCreateLeavesNothingBehind(t *testing.T) {
	program, dir := asProgram(t, programName), t.TempDir()
	name := strings.Repeat("x", 600)
	for _, args := range [][]string{
		{"-u", "-b", name, "-F", "raw", "-o", "cluster_size=512", "image", "1M"},
		{"-o", "cluster_size=0", "image", "1M"},
	} {
		if ran := qcowtest.Stock(t, dir, program, append([]string{"image", "create", "-f", "qcow2"}, args...)...); ran.Status != 1 {
			t.Errorf("%.40q: %+v", args, ran)
		}
		if _, err := os.Stat(filepath.Join(dir, "image")); err == nil {
			t.Errorf("%.40q: the file is there", args)
		}
	}
}
