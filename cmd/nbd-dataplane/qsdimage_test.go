package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// imageScript has images and disks of all kinds be opened.
var imageScript = []string{
	`blockdev-add {"driver":"qcow2","node-name":"b","file":{"driver":"file","filename":"DIR/b"}}`,
	`blockdev-add {"driver":"qcow2","node-name":"c","file":{"driver":"file","filename":"DIR/c"}}`,
	`blockdev-add {"driver":"qcow2","node-name":"e","file":{"driver":"file","filename":"DIR/e"}}`,
	`blockdev-add {"driver":"raw","node-name":"r","offset":512,"size":4096,"file":{"driver":"file","filename":"DIR/r","node-name":"fr"}}`,
	`blockdev-add {"driver":"file","node-name":"odd","filename":"DIR/odd"}`,
	`object-add {"qom-type":"throttle-group","id":"g"}`,
	`blockdev-add {"driver":"throttle","node-name":"t","throttle-group":"g","file":"e"}`,
	`blockdev-add {"driver":"copy-on-read","node-name":"cor","file":"b"}`,
}

const imagesMade = `
	qemu-img create -q -f qcow2 -o cluster_size=4k,lazy_refcounts=on,compression_type=zstd a 1M; qemu-img create -q -f qcow2 -o compat=0.10 -b a -F qcow2 b
	qemu-img create -q -f qcow2 -o data_file=ext,data_file_raw=on c 1M; qemu-img create -q -f qcow2 -o extended_l2=on,refcount_bits=1 e 1M
	qemu-img bitmap --add -g 64k e b1; qemu-img bitmap --add e b2; qemu-img bitmap --disable e b2
	qemu-img create -q -f raw r 1M; qemu-io -f raw -c 'write -q 0 12k' r; qemu-io -f qcow2 -c 'write -q 0 64k' a; truncate -s 2000 odd`

// plainImage drops what is told otherwise on purpose: names, and what QEMU has an image say from the moment on in which it is opened.
func plainImage(image map[string]any) {
	for _, name := range []string{"filename", "backing-filename", "backing-filename-format", "full-backing-filename"} {
		delete(image, name)
	}
	if s, ok := image["format-specific"].(map[string]any); ok {
		bitmaps, _ := s["data"].(map[string]any)["bitmaps"].([]any)
		for _, b := range bitmaps {
			b := b.(map[string]any)
			b["flags"] = slices.DeleteFunc(b["flags"].([]any), func(flag any) bool { return flag == "in-use" })
		}
	}
	if below, ok := image["backing-image"].(map[string]any); ok {
		plainImage(below)
	}
}

// Goal: query-named-block-nodes tells of images what qemu-storage-daemon tells: sizes in use, clusters, what only qcow2 has, through filters too.
// Method: the same nodes at both.
func TestNodesOfImagesAreDescribedAsByQEMU(t *testing.T) {
	look := func(program string) map[string]string {
		s := steer(t, program)
		require.Zero(t, run(t, s.dir, "/bin/sh", "-c", imagesMade).Status)
		s.ok(imageScript...)
		var nodes []struct {
			Name  string         `json:"node-name"`
			Image map[string]any `json:"image"`
		}
		require.NoError(t, json.Unmarshal([]byte(s.do("query-named-block-nodes")), &nodes))
		all := map[string]string{}
		for _, n := range nodes {
			if n.Name[0] != '#' {
				plainImage(n.Image)
				text, err := json.Marshal(n.Image)
				require.NoError(t, err)
				all[n.Name] = string(text)
			}
		}
		require.Zero(t, s.end(syscall.SIGTERM).Status)
		return all
	}
	want := look(stockQSD)
	require.Len(t, want, 8, fmt.Sprint(want))
	require.Equal(t, want, look(asProgram(t, qsdName)))
}

// Goal: sizes of caches that cannot be are refused in QEMU's words. Method: the same answers of both daemons.
func TestCacheSizesAreRefusedAsByQEMU(t *testing.T) {
	look := func(program string) (all []string) {
		s := steer(t, program)
		require.Zero(t, run(t, s.dir, "/bin/sh", "-c", "qemu-img create -q -f qcow2 a 1M").Status)
		for _, sizes := range []string{
			`"cache-size":-1`, `"l2-cache-size":-5`, `"refcount-cache-size":-1`, `"l2-cache-entry-size":-1`, `"l2-cache-entry-size":1`, `"l2-cache-entry-size":131072`,
			`"cache-size":1,"l2-cache-size":2`, `"cache-size":-1,"l2-cache-size":-2`, `"cache-size":"x"`, `"cache-size":1e30`, `"cache-size":18446744073709551615`, `"cache-clean-interval":-1`,
		} {
			all = append(all, sizes+": "+s.do(`blockdev-add {"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"DIR/a"},`+sizes+`}`))
		}
		require.Zero(t, s.end(syscall.SIGTERM).Status)
		return all
	}
	require.Equal(t, look(stockQSD), look(asProgram(t, qsdName)))
}
