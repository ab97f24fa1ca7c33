package interop_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func hexByte(n int) string { return fmt.Sprintf("0x%02x", n%255+1) }
func kib(n int) string     { return fmt.Sprintf("%dk", n) }

// Goal: an image goes into an export and comes out the same. Method: qemu-img convert both ways and compare, over each
// storage, with sparse stretches that must stay zero.
func TestQemuImgConvertBothWays(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		source := sparse(t, 32*mib)
		island(t, source, 3*mib+4096, 5*mib)
		server := serveRaw(t, sparse(t, 32*mib), args...)
		client(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, server.URI()).ok(t)
		client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", source, server.URI()).ok(t)
		out := filepath.Join(t.TempDir(), "out.qcow2")
		client(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-W", "-m", "8", server.URI(), out).ok(t)
		client(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, out).ok(t)
	})
}

// Goal: differences are found. Method: qemu-img compare of an export with another file ends with status 1.
func TestQemuImgCompareTellsDifferences(t *testing.T) {
	server := serveRaw(t, patterned(t, mib))
	other := sparse(t, mib)
	client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", other, server.URI()).fails(t, "Content mismatch at offset 0")
}

// Goal: QEMU sees the same map as the file system. Method: qemu-img map of a file with an island of data.
func TestQemuImgMap(t *testing.T) {
	file := sparse(t, 4*mib)
	island(t, file, 2*mib, 64<<10)
	server := serveRaw(t, file)
	text := client(t, "qemu-img", "map", "--output=json", "-f", "raw", server.URI()).ok(t)
	var extents []struct {
		Start, Length int64
		Data, Zero    bool
	}
	require.NoError(t, json.Unmarshal([]byte(text), &extents), text)
	require.Len(t, extents, 3, text)
	require.EqualValues(t, 2*mib, extents[1].Start)
	require.EqualValues(t, 64<<10, extents[1].Length)
	require.True(t, extents[1].Data && !extents[1].Zero)
	require.True(t, !extents[0].Data && extents[0].Zero && !extents[2].Data && extents[2].Zero, text)
}

// Goal: qemu-img knows the size. Method: qemu-img info as JSON.
func TestQemuImgInfo(t *testing.T) {
	server := serveRaw(t, sparse(t, 7*mib))
	text := client(t, "qemu-img", "info", "--output=json", "-f", "raw", server.URI()).ok(t)
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &info), text)
	require.EqualValues(t, 7*mib, info.Size)
}

// Goal: QEMU's load generator runs through. Method: qemu-img bench reads and writes at its full depth with flushes.
func TestQemuImgBench(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		server := serveRaw(t, sparse(t, 64*mib), args...)
		client(t, "qemu-img", "bench", "-f", "raw", "-c", "4000", "-d", "64", "-s", "4k", server.URI()).ok(t)
		client(t, "qemu-img", "bench", "-f", "raw", "-w", "-c", "2000", "-d", "64", "-s", "4k", "-S", "8k",
			"--flush-interval=500", server.URI()).ok(t)
	})
}
