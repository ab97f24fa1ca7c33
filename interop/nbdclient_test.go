package interop_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// Goal: nbd-client's user sees what is served. Method: its list mode over TCP. Attaching needs the kernel's driver and
// is the end-to-end test's business.
func TestNbdClientList(t *testing.T) {
	server := program.Start(t, subject.Options{
		File: sparse(t, mib), Name: "to-be-listed", TCP: true, Args: []string{"-f", "raw"}})
	out := client(t, "nbd-client", "-l", "127.0.0.1", strconv.Itoa(server.Port)).ok(t)
	require.Contains(t, out, "to-be-listed")
}

// Goal: the same over a unix socket. Method: nbd-client's -unix option.
func TestNbdClientListUnix(t *testing.T) {
	server := program.Start(t, subject.Options{
		File: sparse(t, mib), Name: "to-be-listed", Args: []string{"-f", "raw"}})
	require.Contains(t, client(t, "nbd-client", "-l", "-unix", server.Socket).ok(t), "to-be-listed")
}
