package interop_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// runScript exists because nbdsh by itself reports an error without the line it came from.
const runScript = `import traceback
try:
    exec(compile(open(%q).read(), %q, 'exec'))
except BaseException:
    traceback.print_exc()
    raise`

// nbdsh runs a script of testdata/ in libnbd's shell. The script finds the URI in the variable uri, and in stock
// whether it talks to qemu-nbd, whose error numbers differ from the specification in places.
func nbdsh(t *testing.T, script, uri string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", script))
	require.NoError(t, err)
	stock := "False"
	if program.Stock() {
		stock = "True"
	}
	client(t, "nbdsh", "-n",
		"-c", fmt.Sprintf("uri = %q; stock = %s", uri, stock),
		"-c", fmt.Sprintf(runScript, path, script)).ok(t)
}

// Goal: each command does what the specification says, with each flag it may carry. Method: commands.py over each
// storage, on an export that starts as a hole.
func TestNbdshCommands(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		nbdsh(t, "commands.py", serveRaw(t, sparse(t, 16*mib), args...).URI())
	})
}

// Goal: a wrong request is answered with the right error, changes nothing, and leaves the connection usable (ERR-4,
// RD-3, WR-2, TR-2, WZ-5, BS-6). Method: errors.py switches libnbd's own checks off and sends them.
func TestNbdshErrors(t *testing.T) {
	nbdsh(t, "errors.py", serveRaw(t, patterned(t, 16*mib)).URI())
}

// Goal: whoever may not write gets EPERM and nothing else. Method: readonly.py sends each writing command to a
// read-only export.
func TestNbdshReadOnly(t *testing.T) {
	nbdsh(t, "readonly.py", serveRaw(t, patterned(t, mib), "-r").URI())
}

// Goal: a client that negotiates simple replies gets them. Method: simple.py reads, writes and provokes an error.
func TestNbdshSimpleReplies(t *testing.T) {
	nbdsh(t, "simple.py", serveRaw(t, sparse(t, mib)).URI())
}

// Goal: holes are sent as holes and data as data; one chunk on demand (RD-2, RD-4). Method: sparse.py reads in pieces.
func TestNbdshSparseReads(t *testing.T) {
	file := sparse(t, 4*mib)
	island(t, file, mib, mib)
	nbdsh(t, "sparse.py", serveRaw(t, file).URI())
}

// Goal: the options before transmission can be asked in any order. Method: options.py lists, asks, errs, and goes on.
func TestNbdshOptions(t *testing.T) {
	server := program.Start(t, subject.Options{
		File: sparse(t, mib), Name: "disk", Args: []string{"-f", "raw", "-D", "what it is", "--allocation-depth"}})
	nbdsh(t, "options.py", server.URI())
}

// Goal: a client that leaves with requests in flight gets all its answers, and every write has landed (DI-1). Method:
// inflight.py queues 64 writes, sends DISC behind them and counts; the file is compared by a second client.
func TestNbdshInFlight(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		nbdsh(t, "inflight.py", serveRaw(t, sparse(t, 64*mib), args...).URI())
	})
}

// Goal: a flush on one connection covers what another has been told is written (FL-1). Method: multiconn.py writes on
// one of four connections, flushes on the next, and reads on a third.
func TestNbdshMultiConn(t *testing.T) {
	nbdsh(t, "multiconn.py", serveRaw(t, sparse(t, 4*mib)).URI())
}

// Goal: the largest requests that clients send pass. Method: large.py writes and reads what libnbd allows, 64 MiB.
func TestNbdshLargeRequests(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		nbdsh(t, "large.py", serveRaw(t, sparse(t, 96*mib), args...).URI())
	})
}
