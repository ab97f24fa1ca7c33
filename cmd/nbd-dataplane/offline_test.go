package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// bothSay runs a command of qemu-img and ours, and compares what they print and how they end. What goes to stderr is compared where it is the
// same in kind: lines that are no error of the program itself.
func bothSay(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	stock := qcowtest.Stock(t, dir, "qemu-img", args...)
	ours := qcowtest.Stock(t, dir, program, append([]string{"image"}, args...)...)
	ours.Stderr = strings.ReplaceAll(ours.Stderr, "nbd-dataplane: ", "qemu-img: ")
	if slices.Contains(args, "--output=json") { // the order within an object is that of a hash table
		stock.Stdout, ours.Stdout = sortedJSON(stock.Stdout), sortedJSON(ours.Stdout)
	}
	if diff := cmp.Diff(stock, ours); diff != "" {
		t.Errorf("%q: qemu-img (-) and we (+):\n%s", args, diff)
	}
}

// sortedJSON is JSON with the keys of objects in order, or the text if it is none.
func sortedJSON(text string) string {
	var value any
	if json.Unmarshal([]byte(text), &value) != nil {
		return text
	}
	sorted, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return text
	}
	return string(sorted)
}

// Goal: what is said of images is what qemu-img says, to the letter. Method: both are asked about images of every kind.
func TestImagesAreDescribedAsByQEMU(t *testing.T) {
	program := asProgram(t, programName)
	rows := qcowtest.Matrix()
	rng := rand.New(rand.NewPCG(9, 9))
	for range 10 {
		rows = append(rows, qcowtest.RandomOptions(rng))
	}
	for n := 0; n < len(rows); n += qcowtest.Stride {
		o := rows[n]
		t.Run(fmt.Sprintf("%d-%s", n, o), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			qcowtest.Make(t, dir, o, uint64(n)+7)
			const image = "image.qcow2"
			for _, args := range [][]string{
				{"info", image}, {"info", "--output=json", image}, {"info", "--backing-chain", image}, {"info", "--backing-chain", "--output=json", image},
				{"info", "-f", "qcow2", filepath.Join(dir, image)},
				{"check", image}, {"check", "--output=json", image}, {"check", "-q", image}, {"snapshot", "-l", image},
			} {
				bothSay(t, dir, program, args...)
			}
			if o.Bitmaps == 0 { // or QEMU 7.2 rewrites the header with the snapshots it has not read: none
				bothSay(t, dir, program, "check", "-r", "all", image)
			}
		})
	}
}

// Goal: damaged images are checked and repaired in the words and with the statuses of qemu-img. Method: both check and repair leaks in those of the
// 26 corruptions where nothing is said about events, of which we have none, and where the order of lines is the same.
func TestDamagedImagesAreCheckedAsByQEMU(t *testing.T) {
	program := asProgram(t, programName)
	for _, c := range qcowtest.Corruptions {
		switch c.Number {
		case 6, 9, 18, 19, 21:
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{
				{"info", "image.qcow2"}, {"check", "image.qcow2"}, {"check", "--output=json", "image.qcow2"},
			} {
				dir := t.TempDir()
				c.Make(t, dir)
				bothSay(t, dir, program, args...)
			}
		})
	}
}

// Goal: images are created, with the same line, in the same size, and refused for the same reasons. Method: both are given the same words in
// directories of their own.
func TestImagesAreCreatedAsByQEMU(t *testing.T) {
	program := asProgram(t, programName)
	for _, line := range []string{
		"-f qcow2 a 1M", "-f qcow2 -o size=4M a", "-f qcow2 -o compat=v3 a 1M", "-f qcow2 -b base.qcow2 -F qcow2 a", "-q -f qcow2 -b base.qcow2 -F qcow2 a 4M",
		"-f qcow2 -o compat=1.1,backing_file=base.qcow2,backing_fmt=qcow2,data_file=zz,data_file_raw=off,preallocation=off a 1M",
		"-f qcow2 -o preallocation=metadata,cluster_size=4k,refcount_bits=64 a 1M", "-f qcow2 -o extended_l2=on,compression_type=zstd a 1000",
		"-f qcow2 -u -b nothing -F qcow2 a 1M", "-f raw a 1M", "-f raw -o preallocation=full a 1M", "-f qcow2 a 1.5G", "-f qcow2 a 0",
		"-f qcow2 -o cluster_size=513 a 1M", "-f qcow2 -o refcount_bits=0 a 1M", "-f qcow2 -o compression_type=foo a 1M", "-f qcow2 -o preallocation=foo a 1M",
		"-f qcow2 -o compat=foo a 1M", "-f qcow2 -o foo=bar a 1M", "-f qcow2 -o size=10M a 1M", "-f qcow2 a", "-f qcow2 -b base.qcow2 -F qcow2 base.qcow2",
		"-f qcow2 a 8P", "-f qcow2 nodir/a 1M", "-f foo a 1M", "-f raw -b base.qcow2 a 1M", "-f qcow2 -o lazy_refcounts=foo a 1M", "-f qcow2 -o refcount_bits=foo a 1M",
		"-f qcow2 -F qcow2 a 1M", "-f qcow2 -o data_file_raw=on a 1M", "-f qcow2 -u -b nothing -F qcow2 a",
		"-f qcow2 -o preallocation=metadata -b base.qcow2 -F qcow2 a", "-f qcow2 -o data_file=d,compat=v2 a 1M",
		"-f qcow2 -o lazy_refcounts a 1M", "-f qcow2 -o nolazy_refcounts,extended_l2 a 1M", "-f qcow2 -o nocow=on,extent_size_hint=1M,encryption=off a 1M",
		"-f raw -o nocow=on,extent_size_hint=1M,preallocation=off a 1M", "-f raw -o nopreallocation a 1M", "-f qcow2 -o foo a 1M", "-f qcow2 -o compat a 1M",
		"-f qcow2 -o encryption=foo a 1M", "-f raw -o encryption=off a 1M", "-f qcow2 -o data_file_raw a 1M", "-f qcow2 -b  a 1M",
		`-f qcow2 -b json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}} -F qcow2 a`,
		`-f qcow2 -b json:{"driver":"qcow2","file.filename":"base.qcow2"} -F qcow2 a`, `-f qcow2 -b json:{"file.filename":"base.qcow2"} -F qcow2 a`,
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			stock, ours := t.TempDir(), t.TempDir()
			for _, dir := range []string{stock, ours} {
				qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "3M")
			}
			args := append([]string{"create"}, strings.Split(line, " ")...)
			theirs := qcowtest.Stock(t, stock, "qemu-img", args...)
			our := qcowtest.Stock(t, ours, program, append([]string{"image"}, args...)...)
			our.Stderr = strings.ReplaceAll(our.Stderr, "nbd-dataplane: ", "qemu-img: ")
			if diff := cmp.Diff(theirs, our); diff != "" {
				t.Errorf("qemu-img (-) and we (+):\n%s", diff)
			}
			if _, err := os.Stat(filepath.Join(stock, "a")); theirs.Status != 0 || err != nil {
				return
			}
			describe := func(dir string) string {
				text := qcowtest.Must(t, dir, "qemu-img", "info", "a")
				head, tail, _ := strings.Cut(text, "disk size: ")
				_, tail, _ = strings.Cut(tail, "\n")
				return head + tail
			}
			if diff := cmp.Diff(describe(stock), describe(ours)); diff != "" {
				t.Errorf("qemu-img's image (-) and ours (+):\n%s", diff)
			}
		})
	}
}

// Goal: images are found by other names than a path as qemu-img finds them, and so are backing files that are named like that. Method: both are asked about an
// image, and about overlays of it, by names of all kinds.
func TestImagesAreNamedAsByQEMU(t *testing.T) {
	program := asProgram(t, programName)
	dir := t.TempDir()
	qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "a", "1M")
	qcowtest.Must(t, dir, "qemu-io", "-c", "write 64k 64k", "a")
	qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", "r", "1M")
	for _, line := range []string{
		`info json:{"driver":"qcow2","file":{"driver":"file","filename":"a"}}`, `info json:{"driver":"qcow2","file.filename":"a","lazy-refcounts":true}`,
		`info json:{"file":{"driver":"file","filename":"a"}}`, `info json:{"driver":"file","filename":"r"}`, `info json:{"driver":"raw","file":{"filename":"r"}}`,
		`info -f raw json:{"file":{"driver":"file","filename":"a"}}`, `info -f qcow2 json:{"driver":"raw","file":{"filename":"r"}}`,
		`info json:[]`, `info json:{}`, `info json:{"driver":"qcow2"`, `info json:{"driver":"qcow2"}`, `info json:{"driver":"raw","file":{"driver":"file"}}`,
		`info json:{"driver":"qcow2","file":{"driver":"file","filename":"none"}}`, `info json:{"driver":"qcow2","foo":1,"file.filename":"a"}`,
		`info -f file r`, `check -f file r`, `map -f file r`,
		"info --image-opts driver=qcow2,file.filename=a", "info --image-opts driver=raw,file.driver=file,file.filename=r", "info --image-opts file.filename=a",
		"info --image-opts driver=file,filename=r", "info --image-opts a", "info --image-opts driver=foo,file.filename=a",
		"check --image-opts driver=qcow2,file.filename=a", "map --image-opts driver=qcow2,file.filename=a", "snapshot -l --image-opts driver=qcow2,file.filename=a",
		"snapshot -c s --image-opts driver=qcow2,file.filename=a", "resize --image-opts driver=qcow2,file.filename=a 2M",
		"bitmap --clear --image-opts driver=qcow2,file.filename=a none",
		"rebase -u --image-opts driver=qcow2,file.filename=a -b r -F raw", "rebase -u --image-opts driver=qcow2,file.filename=a -b ",
	} {
		args := strings.Split(line, " ")
		theirs := qcowtest.Stock(t, dir, "qemu-img", args...)
		our := qcowtest.Stock(t, dir, program, append([]string{"image"}, args...)...)
		our.Stderr = strings.ReplaceAll(our.Stderr, "nbd-dataplane: ", "qemu-img: ")
		if strings.HasPrefix(line, "snapshot -c") || strings.HasPrefix(line, "check") { // both have taken one
			theirs.Stdout, our.Stdout = "", ""
		}
		if theirs.Status != our.Status || oneLine(theirs.Stderr) != oneLine(our.Stderr) || withoutTimes(theirs.Stdout) != withoutTimes(our.Stdout) {
			t.Errorf("%q: qemu-img says\n%+v\nand we\n%+v", line, theirs, our)
		}
	}
	for _, backing := range []string{
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"a"}}`, `json:{"driver":"qcow2","file.driver":"file","file.filename":"a"}`,
		`json:{"file.filename":"` + filepath.Join(dir, "a") + `"}`,
	} {
		qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", "top")
		for _, args := range [][]string{
			{"info", "--backing-chain", "top"}, {"info", "--backing-chain", "--output=json", "top"}, {"map", "top"}, {"map", "--output=json", "top"},
		} {
			bothSay(t, dir, program, args...)
		}
	}
}

// withoutTimes is a text without the lines that tell when a snapshot was taken.
func withoutTimes(text string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "00:00:00.000") }), "\n")
}

// Goal: holes in an image's file are told as zeroes where qemu-img tells them so, and as data where it does. Method: both map images of several cluster sizes whose
// clusters have lost a part of their blocks, few or many.
func TestHolesAreMappedAsByQEMU(t *testing.T) {
	program := asProgram(t, programName)
	dir := t.TempDir()
	for n, options := range []string{
		"cluster_size=64k", "cluster_size=4k", "cluster_size=2M", "cluster_size=64k,preallocation=metadata", "cluster_size=4k,preallocation=metadata",
		"cluster_size=64k,preallocation=falloc", "cluster_size=64k,data_file=data",
	} {
		name := fmt.Sprint("image", n)
		qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, name, "8M")
		qcowtest.Must(t, dir, "qemu-io", "-c", "write 0 4M", "-c", "write 5M 4k", "-c", "write -z 6M 100k", name)
		at, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		bothSay(t, dir, program, "map", "--output=json", name)
		for from := at.Size() / 2 &^ 4095; from+1<<16 < at.Size() && from < at.Size()/2+(20<<16); from += 2 << 16 {
			qcowtest.Must(t, dir, "fallocate", "-p", "-o", fmt.Sprint(from), "-l", "32768", name)
			bothSay(t, dir, program, "map", "--output=json", name)
		}
	}
}

// Goal: images are changed as qemu-img changes them. Method: both are given the same commands, one after the other, in directories of their own; what
// they say is compared, and what qemu-img says of the images then.
func TestImagesAreChangedAsByQEMU(t *testing.T) {
	program := asProgram(t, programName)
	stock, ours := t.TempDir(), t.TempDir()
	for _, dir := range []string{stock, ours} {
		qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "a", "10M")
		qcowtest.Must(t, dir, "qemu-io", "-c", "write 0 6M", "a")
		qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "raw", "r.raw", "1M")
		qcowtest.Must(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "v", "1M")
		qcowtest.Must(t, dir, "qemu-img", "snapshot", "-c", "s", "v")
	}
	for _, line := range []string{
		"resize a 20M", "resize a 5M", "resize --shrink a 5M", "resize a +1M", "resize a 6M", "resize a 6000001", "resize --shrink a 6000001", "resize a +1000", "resize a 8000001", "resize --preallocation=full a 1M", "resize --preallocation=full a 6M", "resize -q a 7M",
		"resize --preallocation=full a 8M", "resize --preallocation=metadata a 9M", "resize --preallocation=foo a 9M", "resize --shrink --preallocation=full a 3M",
		"resize -f raw r.raw 3M", "resize -f raw --shrink r.raw 1M", "resize v 2M", "resize a 6M",
		"rebase -u -b r.raw -F raw a", "rebase -u -b  a", "rebase -u -b x a", "rebase -u -b x -F foo a",
		"bitmap a b", "bitmap --add a b", "bitmap --add a b", "bitmap --remove a zz", "bitmap --add -g 1000 a g", "bitmap --add -g 256 a g",
		"bitmap --disable a b", "bitmap --enable a b", "bitmap --clear a b", "bitmap --clear a bb", "bitmap --merge b a c", "bitmap --add --merge b a c",
		"bitmap --remove --add a c", "bitmap -g 512 --clear a b",
		"check -q -T none a", "check -T foo a", "check -q --object secret,id=x,data=y a", "check -q -r leaks -U a", "snapshot -U -c t a",
		"rebase -u -t foo -b r.raw -F raw a", "rebase -u -T foo -b r.raw -F raw a", "rebase -u -U -t none -T writeback -b r.raw -F raw a", "rebase -u -b  a",
		"snapshot -d q a", "snapshot -c t a", "snapshot -a zz a", "snapshot -a t a", "snapshot -l -c x a", "check a",
	} {
		args := strings.Split(line, " ")
		theirs := qcowtest.Stock(t, stock, "qemu-img", args...)
		our := qcowtest.Stock(t, ours, program, append([]string{"image"}, args...)...)
		our.Stderr = strings.ReplaceAll(our.Stderr, "nbd-dataplane: ", "qemu-img: ")
		if theirs.Status != our.Status || oneLine(theirs.Stderr) != oneLine(our.Stderr) || args[0] != "check" && theirs.Stdout != our.Stdout {
			t.Errorf("%q: qemu-img says\n%+v\nand we\n%+v", line, theirs, our)
		}
		for _, name := range []string{"a", "v", "r.raw"} {
			qcowtest.Must(t, stock, "qemu-img", "compare", "-U", "-f", formatOf(name), "-F", formatOf(name), name, filepath.Join(ours, name))
			if diff := cmp.Diff(described(t, stock, name), described(t, ours, name)); diff != "" {
				t.Errorf("%q: qemu-img's %s (-) and ours (+):\n%s", line, name, diff)
			}
		}
	}
}

func formatOf(name string) string {
	if strings.HasSuffix(name, ".raw") {
		return "raw"
	}
	return "qcow2"
}

// described is what qemu-img info says, but for what two images cannot have in common.
func described(t *testing.T, dir, name string) string {
	var kept []string
	for _, line := range strings.Split(qcowtest.Must(t, dir, "qemu-img", "info", "-f", formatOf(name), name), "\n") {
		if !strings.HasPrefix(line, "disk size: ") && !strings.Contains(line, "00:00:00.000") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// oneLine is an error as we print it, in one line and with our advice left out.
func oneLine(text string) string {
	text, _, _ = strings.Cut(text, "Try 'qemu-img --help'")
	text, _, _ = strings.Cut(text, "; see '")
	text, _, _ = strings.Cut(text, "qemu-img: warning: Shrinking")
	return strings.TrimSpace(strings.ReplaceAll(text, "\n", " "))
}

// withoutDiskSize leaves out how much space is taken: clusters of metadata are written as a whole here.
func withoutDiskSize(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "disk size: ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
