package main

import (
	"strings"
	"testing"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// partsLines are commands about parts of files, and about images on something else than they say. r is raw, off a qcow2 image behind 64 KiB, o an overlay of a, x
// has its data in d; b and e are to take their places.
var partsLines = []string{
	`info json:{"driver":"raw","offset":65536,"size":65536,"file":{"driver":"file","filename":"r"}}`,
	"info --image-opts driver=raw,offset=65536,file.filename=r", "info --output=json --image-opts driver=raw,size=65536,file.filename=r",
	"info --image-opts driver=raw,offset=64k,size=51200,file.filename=r",
	"info --image-opts driver=raw,offset=5M,file.filename=r", "info --image-opts driver=raw,size=100,file.filename=r",
	"info --image-opts driver=raw,offset=1M,size=64M,file.filename=r", "check --image-opts driver=raw,offset=64k,file.filename=r",
	"map --output=json --image-opts driver=raw,offset=65536,size=64k,file.filename=r", "map --image-opts driver=raw,offset=65536,size=128k,file.filename=r",
	"resize --image-opts driver=raw,offset=65536,size=64k,file.filename=r 128k", "resize --image-opts driver=raw,offset=65536,file.filename=r 4M",
	"resize --shrink --image-opts driver=raw,offset=65536,file.filename=r 2M", "info r",
	"info OFF", "check OFF", "map --output=json OFF", "snapshot -c s OFF", "bitmap --add OFF bits", "resize OFF 2M", "check OFF", "snapshot -a s OFF", "snapshot -d s OFF", "check OFF",
	"rebase -u -b a -F qcow2 OFF",
	"map --output=json OVER,backing.driver=qcow2,backing.file.filename=b", "map OVER,backing.driver=qcow2,backing.file.filename=b",
	"map --output=json OVER,backing.driver=raw,backing.offset=64k,backing.file.filename=r",
	`map --output=json json:{"driver":"qcow2","file":{"driver":"file","filename":"o"},"backing":null}`,
	`map --output=json json:{"driver":"qcow2","file":{"driver":"file","filename":"o"},"backing":{"driver":"qcow2","file":{"driver":"file","filename":"b"}}}`,
	`info --backing-chain json:{"driver":"qcow2","file":{"driver":"file","filename":"o"},"backing":null}`,
	"map --output=json OVER,backing.driver=qcow2,backing.file.filename=none", "map --output=json OVER,backing=b",
	"info OVER,backing.driver=qcow2,backing.file.filename=b", "rebase -u OVER,backing.driver=qcow2,backing.file.filename=b -b ",
	"check OVER,backing.driver=qcow2,backing.file.filename=b", "check OVER,backing.driver=qcow2,backing.file.filename=none",
	"snapshot -c s OVER,backing.driver=qcow2,backing.file.filename=b", "bitmap --add OVER,backing.driver=qcow2,backing.file.filename=b bits",
	"snapshot -l OVER,backing.driver=qcow2,backing.file.filename=none",
	"resize OVER,backing.driver=qcow2,backing.file.filename=b 3M",
	"map --output=json DATA,data-file.driver=file,data-file.filename=e", "map DATA,data-file.driver=file,data-file.filename=e",
	"check DATA,data-file.driver=file,data-file.filename=e", "check DATA,data-file.driver=file,data-file.filename=none", "check DATA,data-file=zz",
	"info DATA,data-file.driver=file,data-file.filename=e", "snapshot -c s DATA,data-file.driver=file,data-file.filename=e",
	"resize DATA,data-file.driver=file,data-file.filename=e 2M", "info d", "info e",
	"check OVER,data-file.driver=file,data-file.filename=e",
	`check json:{"driver":"qcow2","file":"o"}`, `info json:{"driver":"raw","file":"r"}`,
}

// Goal: parts of files, and images that are put on other backing and data files than they name, are used as by qemu-img. Method: both are given the same commands
// in directories alike; what they say is compared, and what qemu-img says of all files at last.
func TestPartsAreUsedAsByQEMU(t *testing.T) {
	program := asProgram(t, programName)
	dirs := map[string]string{"qemu-img": t.TempDir(), program: t.TempDir()}
	for _, dir := range dirs {
		qcowtest.Must(t, dir, "/bin/sh", "-c", `
			qemu-img create -q -f qcow2 a 1M; qemu-img create -q -f qcow2 -b a -F qcow2 o; qemu-img create -q -f qcow2 b 2M; qemu-io -c 'write 0 64k' -c 'write 1M 128k' b
			qemu-img create -q -f raw r 3M; qemu-io -f raw -c 'write 100k 64k' r
			head -c 65536 /dev/zero >off; cat a >>off
			qemu-img create -q -f qcow2 -o data_file=d x 1M; qemu-io -c 'write 0 64k' x; cp d e`)
	}
	replace := strings.NewReplacer("OFF", "--image-opts driver=qcow2,file.driver=raw,file.offset=65536,file.file.driver=file,file.file.filename=off",
		"OVER", "--image-opts driver=qcow2,file.filename=o", "DATA", "--image-opts driver=qcow2,file.filename=x")
	for _, line := range partsLines {
		args := strings.Split(replace.Replace(line), " ")
		theirs := qcowtest.Stock(t, dirs["qemu-img"], "qemu-img", args...)
		our := qcowtest.Stock(t, dirs[program], program, append([]string{"image"}, args...)...)
		our.Stderr = strings.ReplaceAll(our.Stderr, "nbd-dataplane: ", "qemu-img: ")
		if strings.Contains(line, "json") && args[0] == "info" {
			theirs.Stdout, our.Stdout = sortedJSON(theirs.Stdout), sortedJSON(our.Stdout)
		}
		for _, ran := range []*qcowtest.Ran{&theirs, &our} {
			ran.Stdout = withoutTimes(withoutDiskSize(ran.Stdout))
		}
		if args[0] == "check" { // how an image has grown is not the same
			theirs.Stdout, our.Stdout = "", ""
		}
		if theirs.Status != our.Status || oneLine(theirs.Stderr) != oneLine(our.Stderr) || theirs.Stdout != our.Stdout {
			t.Errorf("%q: qemu-img says\n%+v\nand we\n%+v", line, theirs, our)
		}
	}
	for _, name := range []string{"a", "b", "o", "x"} {
		want, got := described(t, dirs["qemu-img"], name), described(t, dirs[program], name)
		if want != got {
			t.Errorf("%s: with qemu-img\n%s\nand with us\n%s", name, want, got)
		}
	}
}
