package interop_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// qemuIO runs commands on an export and fails the test if one of them does: qemu-io reports a wrong pattern in words
// and, in batch mode, by its status.
func qemuIO(t *testing.T, uri string, commands ...string) string {
	t.Helper()
	args := []string{"-f", "raw"}
	for _, command := range commands {
		args = append(args, "-c", command)
	}
	out := client(t, "qemu-io", append(args, uri)...).ok(t)
	require.NotContains(t, out, "Pattern verification failed")
	require.NotContains(t, out, "Input/output error")
	return out
}

// Goal: what QEMU writes is read back, aligned or not, by a new client too. Method: patterns written and verified by
// qemu-io over each storage; zeroes and discards between them.
func TestQemuIOPatterns(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		file := sparse(t, 32*mib)
		server := serveRaw(t, file, args...)
		qemuIO(t, server.URI(),
			"write -P 0x11 0 1M", "write -P 0x22 1M 64k", "write -P 0x33 5000 3000",
			"write -f -P 0x44 2M 4k", "write -z 512k 128k", "write -z -u 768k 64k",
			"flush", "discard 3M 1M", "aio_write -P 0x55 8M 8M", "aio_flush")
		qemuIO(t, server.URI(),
			"read -P 0x11 0 5000", "read -P 0x33 5000 3000", "read -P 0x11 8000 516288",
			"read -P 0 512k 128k", "read -P 0x11 640k 128k", "read -P 0 768k 64k",
			"read -P 0x22 1M 64k", "read -P 0x44 2M 4k", "read -P 0x55 8M 8M", "read -P 0 16M 16M")
		server.Stop(t)
		direct, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("\x33", 3000), string(direct[5000:8000]), "the file itself holds what was written")
	})
}

// Goal: a read-only export cannot be written. Method: qemu-io refuses to open it for writing and reads it with -r.
func TestQemuIOReadOnly(t *testing.T) {
	server := serveRaw(t, patterned(t, mib), "-r")
	client(t, "qemu-io", "-f", "raw", "-c", "write 0 512", server.URI()).fails(t, "Permission denied")
	client(t, "qemu-io", "-r", "-f", "raw", "-c", "read 0 1M", server.URI()).ok(t)
}

// Goal: sizes that are no multiple of 512 keep their last bytes. Method: a file of 1000 bytes, read to its end and beyond.
func TestQemuIOOddSize(t *testing.T) {
	server := serveRaw(t, patterned(t, 1000))
	qemuIO(t, server.URI(), "read 0 1000", "read -P 0 1000 24")
}

// Goal: hundreds of requests in flight are all answered. Method: qemu-io queues writes and reads without waiting.
func TestQemuIOManyInFlight(t *testing.T) {
	server := serveRaw(t, sparse(t, 64*mib))
	var commands []string
	for i := range 200 {
		commands = append(commands, "aio_write -q -P "+hexByte(i)+" "+kib(i*64)+" 64k")
	}
	commands = append(commands, "aio_flush")
	for i := range 200 {
		commands = append(commands, "aio_read -q -P "+hexByte(i)+" "+kib(i*64)+" 64k")
	}
	qemuIO(t, server.URI(), append(commands, "aio_flush")...)
}
