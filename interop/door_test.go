package interop_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

func portOf(server *subject.Server) string { return strconv.Itoa(server.Port) }

// Goal: one server offers several files, each under its name. Method: two files of different sizes, listed and read.
func TestSeveralFiles(t *testing.T) {
	if program.Stock() {
		return // qemu-nbd serves one file
	}
	first, second := patterned(t, mib), sparse(t, 2*mib)
	server := program.Start(t, subject.Options{
		File: "second=" + second, Args: []string{"-f", "raw", "-r", "first=" + first}})
	uri := func(name string) string { return "nbd+unix:///" + name + "?socket=" + server.Socket }
	sizes := map[string]int64{}
	for _, export := range nbdinfoJSON(t, "--list", uri("")).Exports {
		sizes[export.Name] = export.Size
	}
	require.Equal(t, map[string]int64{"first": mib, "second": 2 * mib}, sizes)
	client(t, "qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", first, uri("first")).ok(t)
}

// Goal: nobody else writes to an image that we serve, and whoever only looks may: the locks are QEMU's own OFD
// bytes. Method: qemu-io and qemu-img open the served file itself, with and without -U; after the server has gone, the
// file is free.
func TestImageIsLocked(t *testing.T) {
	if program.Stock() {
		return // qemu-nbd lets others write
	}
	file := sparse(t, mib)
	server := serveRaw(t, file)
	client(t, "qemu-io", "-f", "raw", "-c", "write 0 512", file).fails(t, "lock")
	client(t, "qemu-img", "info", "-f", "raw", "-U", file).ok(t)
	server.Stop(t)
	client(t, "qemu-io", "-f", "raw", "-c", "write 0 512", file).ok(t)
}

// Goal: an image that somebody else writes to is not served. Method: qemu-nbd would share it, so a qemu-io shell holds
// it; the refusal names the file.
func TestLockedImageIsRefused(t *testing.T) {
	if program.Stock() {
		return // qemu-nbd lets others write
	}
	file := sparse(t, mib)
	holder := startShell(t, "driver=raw,file.driver=file,file.filename="+file)
	defer holder.quit()
	line := program.Command("-f", "raw", "-k", t.TempDir()+"/s", file)
	got := client(t, line[0], line[1:]...)
	got.fails(t, file)
	require.Equal(t, 1, exitStatus(got.err), got.stderr)
}

// Goal: a client that leaves without a word costs nothing. Method: connections that send nothing, half a handshake, or
// garbage, while another client works.
func TestRudeClients(t *testing.T) {
	server := serveRaw(t, sparse(t, 4*mib))
	for _, words := range []string{"", "\x00\x00\x00", "GET / HTTP/1.0\r\n\r\n", "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff"} {
		clientInput(t, words, "socat", "-t", "0", "-", "UNIX-CONNECT:"+server.Socket)
		qemuIO(t, server.URI(), "write -P 5 0 1M", "read -P 5 0 1M")
	}
}
