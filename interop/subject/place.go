package subject

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// FreePort is a TCP port on the loopback address that nothing listens on now. It is none of those that the kernel gives to whoever connects (from 32768 on, see
// ip_local_port_range), which somebody might have been given by the time a server listens there.
func FreePort(t testing.TB) int {
	t.Helper()
	const first, count, tries = 10_000, 20_000, 100
	var err error
	for range tries {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(count))); err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatalf("looking for a free port: %v", err)
	return 0
}

// shortDir is a directory whose name leaves room in the 107 bytes of a unix socket's address, which t.TempDir's, built
// of the test's name, may not.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatalf("making a directory: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
