package qcowtest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Corruption is one way to damage an image, and a command that runs into the damage. They are those of QEMU's iotest 060,
// in its order. What the stock tools say of each is in testdata/corruptions.json.
type Corruption struct {
	Number int
	Name   string
	Create string // options of qemu-img create
	// Backing gives the image a backing file.
	Backing bool
	Prepare [][]string // commands on the image, of qemu-io; a first word "snapshot" is qemu-img's
	Damage  []Patch
	// Trigger is the program and its arguments; IMG stands for the image.
	Trigger []string
}

// Patch is bytes that are written into the file.
type Patch struct {
	Offset int64
	Bytes  []byte
}

// The places of things in a new image with clusters of 64 KiB.
const (
	atTableOffset  = 48
	atTableLength  = 56
	atIncompatible = 72
	atRefcounts    = 0x10000 // the refcount table
	atRefblock     = 0x20000
	atL1           = 0x30000
	atL2           = 0x40000
	atL2Again      = 0x80000 // the L2 table after a snapshot
)

const copied = 1 << 63

func entry(offset int64, value uint64) Patch {
	return Patch{offset, binary.BigEndian.AppendUint64(nil, value)}
}

func qemuIO(commands ...string) []string {
	args := []string{"qemu-io"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return append(args, "IMG")
}

const (
	sizeOfCorrupt = "64M"
	metadata      = "preallocation=metadata"
)

// Corruptions are the 26 of them.
var Corruptions = []Corruption{
	{1, "L2 reference into the active L1 table", "", false, [][]string{{"write 0 512"}}, []Patch{entry(atL1, copied|atL1)}, qemuIO("write 0 512")},
	{2, "cluster data reference into refcount block", "", false, [][]string{{"write 0 512"}}, []Patch{entry(atL2, copied|atRefblock)}, qemuIO("write 0 512")},
	{3, "cluster data reference into inactive L2 table", "", false, [][]string{{"write 0 512"}, {"snapshot", "-c", "foo"}, {"write 0 512"}},
		[]Patch{entry(atL2Again, copied|atL2)}, []string{"qemu-io", "-c", "open -o overlap-check=all IMG", "-c", "write 0 512"}},
	{4, "overlap while COW is in flight", "", true, [][]string{{"write 64k 64k"}}, []Patch{entry(atL2+8, copied|atL2)},
		[]string{"qemu-io", "-c", "open -o driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=IMG", "-c", "break cow_write 0", "-c", "aio_write 0k 1k",
			"-c", "wait_break 0", "-c", "write 64k 64k", "-c", "resume 0"}},
	{5, "unallocated image header", "", false, [][]string{{"write 64k 64k"}}, []Patch{{atRefblock, []byte{0, 0}}}, qemuIO("write 0 64k")},
	{6, "unaligned L1 entry", "", false, [][]string{{"write 0 64k"}}, []Patch{entry(atL1, copied|atL2|0x2a00)}, qemuIO("read 0 64k")},
	{7, "unaligned L2 entry", "", false, [][]string{{"write 0 64k"}}, []Patch{entry(atL2, copied|0x52a00)}, qemuIO("read 0 64k")},
	{8, "unaligned preallocated zero cluster, amended", metadata, false, [][]string{{"write 0 64k", "write -z 0 64k"}}, []Patch{entry(atL2, copied|0x52a01)},
		[]string{"qemu-img", "amend", "-o", "compat=0.10", "IMG"}},
	{9, "unaligned refcount table entry", "", false, nil, []Patch{entry(atRefcounts, atRefblock|0x2a00)}, qemuIO("write 0 64k")},
	{10, "discard of an unaligned cluster", "", false, [][]string{{"write 0 64k"}}, []Patch{entry(atL2, copied|0x52a00)}, qemuIO("discard 0 64k")},
	{11, "corrupt L2 of a read-only image", "", false, [][]string{{"write 0 64k"}}, []Patch{entry(atL2, copied|0x52a00)},
		[]string{"qemu-io", "-r", "-c", "read 0 64k", "-c", "read 0 64k", "IMG"}},
	{12, "non-fatal and then fatal", "", false, [][]string{{"write 0 128k"}}, []Patch{entry(atL2, copied|0x52a00), entry(atL2+8, copied|0x62a00)},
		qemuIO("discard 0 64k", "read 64k 64k")},
	{13, "empty refcount table", "", false, nil, []Patch{entry(atRefcounts, 0)}, qemuIO("write 0 64k")},
	{14, "empty refcount table with valid L1 and L2 tables", "", false, [][]string{{"write 0 64k"}}, []Patch{entry(atRefcounts, 0)}, qemuIO("write 0 64k", "write 64k 64k")},
	{15, "empty refcount block", "", false, nil, []Patch{entry(atRefblock, 0)}, qemuIO("write 0 64k")},
	{16, "empty refcount block with compressed write", "", false, [][]string{{"write 0 64k"}},
		[]Patch{entry(atRefblock, 0), entry(atRefblock+8, 0)}, qemuIO("write -c 64k 64k")},
	{17, "empty refcount table in the header", "", false, nil, []Patch{{atTableLength, []byte{0, 0, 0, 0}}}, qemuIO("read 0 64k")},
	{18, "incorrect refcount table offset", "", false, nil, []Patch{entry(atTableOffset, 0)}, qemuIO("write 0 64k")},
	{19, "dirty image with an unaligned refcount block", "", false, [][]string{{"write 0 64k"}},
		[]Patch{entry(atRefcounts, 0xffff2a00), entry(atIncompatible, 1)}, qemuIO("read 0 64k")},
	{20, "unaligned preallocated zero cluster, written", metadata, false, [][]string{{"write -z 0 64k"}}, []Patch{entry(atL2, copied|0x2a01)}, qemuIO("write 0 64k")},
	{21, "unaligned refcount block and discard", "", false, [][]string{{"write 0 128k"}}, []Patch{entry(atRefcounts, 0x2a00)}, qemuIO("discard 0 128k")},
	{22, "refcount block outside of the image", "", false, nil, []Patch{entry(atRefcounts+8, 0xffffff00000000)},
		[]string{"qemu-img", "resize", "--shrink", "IMG", "32M"}},
	{23, "refcount block inside of bounds but not covered", "refcount_bits=1", false, nil, []Patch{entry(atRefcounts+8, 0x1000000000)},
		[]string{"qemu-img", "resize", "--shrink", "IMG", "32M"}},
	{24, "refcount block covered by an unaligned one", "refcount_bits=1", false, nil, []Patch{entry(atRefcounts+8, 0x1000000000), entry(atRefcounts+16, 0x200)},
		[]string{"qemu-img", "resize", "--shrink", "IMG", "32M"}},
	{25, "corrupt image that is closed afterwards", "", false, [][]string{{"write 0 64k"}}, []Patch{entry(atL2, copied|0x52a00)}, qemuIO("read 0 64k", "close")},
	{26, "corrupt image that is inactive", "", false, [][]string{{"write 0 64k"}}, []Patch{entry(atL2, copied|0x52a00)},
		[]string{"qemu-io", "-r", "-U", "-c", "read 0 64k", "IMG"}},
}

// String is for names of tests.
func (c Corruption) String() string { return fmt.Sprintf("%02d %s", c.Number, c.Name) }

// Make makes a damaged image in a directory.
func (c Corruption) Make(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "image.qcow2")
	args := []string{"create", "-q", "-f", "qcow2"}
	if c.Create != "" {
		args = append(args, "-o", c.Create)
	}
	if c.Backing {
		Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", sizeOfCorrupt)
		// What is copied must not be zeroes: those would not be written.
		Must(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 128k", "base.qcow2")
		args = append(args, "-b", "base.qcow2", "-F", "qcow2")
	}
	Must(t, dir, "qemu-img", append(args, path, sizeOfCorrupt)...)
	for _, commands := range c.Prepare {
		if commands[0] == "snapshot" {
			Must(t, dir, "qemu-img", append(commands, path)...)
			continue
		}
		run := strings.Split(strings.ReplaceAll(strings.Join(qemuIO(commands...), "\x00"), "IMG", path), "\x00")
		Must(t, dir, run[0], run[1:]...)
	}
	Apply(t, path, c.Damage)
	return path
}

// Apply writes patches into a file.
func Apply(t testing.TB, path string, patches []Patch) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range patches {
		if _, err := f.WriteAt(p.Bytes, p.Offset); err != nil {
			t.Fatal(err)
		}
	}
}

// RunTrigger runs what comes upon the damage.
func (c Corruption) RunTrigger(t testing.TB, path string) Ran {
	t.Helper()
	args := make([]string, len(c.Trigger))
	for i, word := range c.Trigger {
		args[i] = strings.ReplaceAll(word, "IMG", path)
	}
	return Stock(t, filepath.Dir(path), args[0], args[1:]...).without(path)
}

var speeds = regexp.MustCompile(`(?m)^.* ops; .*\n`)

// without takes the image's path and what depends on the machine out of the output.
func (r Ran) without(path string) Ran {
	tidy := func(text string) string {
		return speeds.ReplaceAllString(strings.ReplaceAll(text, path, "IMG"), "")
	}
	return Ran{r.Status, tidy(r.Stdout), tidy(r.Stderr)}
}
