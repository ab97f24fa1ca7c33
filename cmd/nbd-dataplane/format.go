package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// magic is how an image format is recognised.
type magic struct {
	format string
	at     int64 // from the beginning; negative: from the end
	bytes  string
}

// magics are the formats that QEMU would find by probing, and that are no raw disk.
var magics = []magic{
	{"qcow2", 0, "QFI\xfb"},
	{"qed", 0, "QED\x00"},
	{"vmdk", 0, "KDMV"},
	{"vmdk", 0, "COWD"},
	{"vmdk", 0, "# Disk DescriptorFile"},
	{"vhdx", 0, "vhdxfile"},
	{"vpc", 0, "conectix"},
	{"vpc", -512, "conectix"},
	{"dmg", -512, "koly"},
	{"vdi", 64, "\x7f\x10\xda\xbe"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"parallels", 0, "WithoutFreeSpace"},
	{"parallels", 0, "WithouFreSpacExt"},
	{"bochs", 0, "Bochs Virtual HD Image"},
	{"cloop", 0, "#!/bin/sh\n#V2.0 Format\n"},
}

// sniff returns the image format that the content of a file shows, or "raw". A file that cannot be read shows nothing:
// opening it will say why.
func sniff(path string) string {
	st, err := os.Stat(path)
	if err != nil || !(st.Mode().IsRegular() || st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0) {
		return "raw"
	}
	f, err := os.Open(path)
	if err != nil {
		return "raw"
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "raw"
	}
	return sniffIn(f, end)
}

func sniffIn(r io.ReaderAt, sizeBytes int64) string {
	for _, m := range magics {
		at := m.at
		if at < 0 {
			at += sizeBytes
		}
		found := make([]byte, len(m.bytes))
		if at < 0 {
			continue
		}
		if _, err := r.ReadAt(found, at); (err == nil || errors.Is(err, io.EOF)) && bytes.Equal(found, []byte(m.bytes)) {
			return m.format
		}
	}
	return "raw"
}

// otherFormats are formats of QEMU's that -f may name and that cannot be had.
var otherFormats = map[string]bool{
	"qcow": true, "qed": true, "vmdk": true, "vhdx": true, "vpc": true, "dmg": true, "vdi": true, "luks": true,
	"parallels": true, "bochs": true, "cloop": true,
}

// qemuDrivers are the drivers of QEMU 7.2 (its enumeration BlockdevDriver), one of which an image may say is its backing file's.
var qemuDrivers = strings.Fields("blkdebug blklogwrites blkreplay blkverify bochs cloop compress copy-before-write copy-on-read dmg file " +
	"snapshot-access ftp ftps gluster host_cdrom host_device http https io_uring iscsi luks nbd nfs null-aio null-co nvme nvme-io_uring " +
	"parallels preallocate qcow qcow2 qed quorum raw rbd replication ssh throttle vdi vhdx virtio-blk-vfio-pci virtio-blk-vhost-user " +
	"virtio-blk-vhost-vdpa vmdk vpc vvfat")

// checkFormat refuses what this version cannot read.
func checkFormat(display, format string) error {
	switch {
	case format == "raw":
		return nil
	case otherFormats[format]:
		return wrong(fmt.Sprintf("%s: the image format %s is not supported by this version; convert it with 'qemu-img convert -O raw', or give -f raw to serve the bytes as they are", display, format),
			fmt.Sprintf("image format '%s' is not supported by this version; convert it with 'qemu-img convert -O raw'", format))
	}
	return wrong(fmt.Sprintf("-f/--format %s: there is no such image format; use raw", format), fmt.Sprintf("Unknown driver '%s'", format))
}

// keepsRaw refuses a first sector that would make a disk, whose format was guessed to be raw, look like another one at the
// next start. QEMU refuses the same.
func keepsRaw(block0 []byte) error {
	if format := sniffIn(bytes.NewReader(block0), int64(len(block0))); format != "raw" {
		return fmt.Errorf("the image would look like %s, and its format was not given (-f raw allows it): %w", format, syscall.EPERM)
	}
	return nil
}

// protocolDriver is the driver for a path.
func protocolDriver(path string) string {
	if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeDevice != 0 {
		return "host_device"
	}
	return "file"
}
