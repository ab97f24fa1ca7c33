package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
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

// Goal: a disk that ends within a cluster becomes longer, and what is new reads as zeroes, whatever that cluster had there and however long the disk below is. Method: images of
// several kinds that were cut off, in each way of setting space apart; qemu-io reads them, and qemu-img finds them clean.
func TestResizeWithinACluster(t *testing.T) {
	program := asProgram(t, programName)
	for _, options := range []string{"compat=0.10", "compat=1.1", "extended_l2=on", "data_file=data"} {
		for _, had := range []string{"write -q -P 9 0 128k", "write -q -z 0 128k", "write -q -c -P 9 0 64k", "read -q 0 512"} {
			if strings.Contains(had, "-c") && options == "data_file=data" {
				continue // there is nothing compressed in a data file
			}
			t.Run(options+" "+had, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", "base", "3M")
				qcowtest.Must(t, dir, "qemu-io", "-f", "raw", "-c", "write -q -P 9 0 3M", "base")
				for _, size := range []string{"70k", "2M", "9M"} {
					for _, how := range []string{"off", "metadata", "full"} {
						qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", "base", "-F", "raw", "a", "128k")
						qcowtest.Must(t, dir, "qemu-io", "-c", had, "a")
						qcowtest.Must(t, dir, program, "image", "resize", "-q", "--shrink", "a", "33k")
						qcowtest.Must(t, dir, program, "image", "resize", "-q", "--preallocation", how, "a", size)
						qcowtest.MustBeClean(t, filepath.Join(dir, "a"), false)
						pattern := "9"
						if strings.Contains(had, "-z") {
							pattern = "0"
						}
						qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", "flat", size)
						qcowtest.Must(t, dir, "qemu-io", "-f", "raw", "-c", "write -q -P "+pattern+" 0 33k", "flat")
						qcowtest.MustEqual(t, filepath.Join(dir, "a"), "qcow2", filepath.Join(dir, "flat"), "raw")
					}
				}
			})
		}
	}
}

// Goal: the part of a disk that the server's driver makes longer is that of the image which is meant, in a part of a file as well. Method: an image behind a megabyte of zeroes,
// which ends within a cluster above a longer disk.
func TestResizeInAWindow(t *testing.T) {
	program := asProgram(t, programName)
	dir := t.TempDir()
	qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", "base", "3M")
	qcowtest.Must(t, dir, "qemu-io", "-f", "raw", "-c", "write -q -P 9 0 3M", "base")
	qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "a", "33k")
	qcowtest.Must(t, dir, "sh", "-c", "(head -c 1M /dev/zero; cat a) >file")
	const window = "driver=qcow2,file.driver=raw,file.offset=1048576,file.file.driver=file,file.file.filename=file"
	qcowtest.Must(t, dir, program, "image", "resize", "-q", "--image-opts", window, "2M")
	qcowtest.Must(t, dir, "qemu-io", "--image-opts", "-c", "read -q -P 9 0 33k", "-c", "read -q -P 0 33k 2015k", window)
	qcowtest.Must(t, dir, "cmp", "-n", "1048576", "file", "/dev/zero")
}

// Goal: a file that is missing below an image, and a bitmap that it cannot keep, are told of in qemu-img's words. Method: both are given the same commands; what is above the
// gap is one image, or two. QEMU makes up a name of a node where we name the image.
func TestImagesThatCannotBeChangedAreRefusedAsByQEMU(t *testing.T) {
	program, dir := asProgram(t, programName), t.TempDir()
	for _, args := range []string{"-u -b gone -F raw g 1M", "-u -b g -F qcow2 gg 1M", "-o compat=0.10 old 1M", "-o preallocation=off,cluster_size=2M wide 60T", "a 1M"} {
		qcowtest.Must(t, dir, "qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, strings.Fields(args)...)...)
	}
	node := regexp.MustCompile(`persistent in '[^']*'`)
	long := strings.Repeat("n", format.BitmapNameMax+1)
	for _, line := range []string{
		"map g", "map gg", "map --output=json gg", "resize g 2M", "resize gg 2M", "resize gg +1M", "resize --shrink g 512k", "resize nope 1M", "map nope",
		"info --backing-chain gg", "bitmap --add a " + long, "bitmap --remove a " + long, "bitmap --merge " + long + " a b", "bitmap --add a ", "bitmap --add old b",
		"bitmap --add old " + long, "bitmap --add -g 512 wide b",
	} {
		args := strings.Split(line, " ")
		theirs := qcowtest.Stock(t, dir, "qemu-img", args...)
		our := qcowtest.Stock(t, dir, program, append([]string{"image"}, args...)...)
		our.Stderr = strings.ReplaceAll(our.Stderr, "nbd-dataplane: ", "qemu-img: ")
		require.NotZero(t, our.Status, line)
		require.Equal(t, theirs.Status, our.Status, line)
		require.Equal(t, node.ReplaceAllString(theirs.Stderr, "persistent"), node.ReplaceAllString(our.Stderr, "persistent"), line)
	}
}
