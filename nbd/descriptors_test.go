package nbd

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: the descriptors that are kept for a client are given back however it ends. Method: clients that leave at once, in the handshake, in clear and
// behind TLS; the server's process has as many descriptors afterwards as before.
func TestDescriptorsAreGivenBack(t *testing.T) {
	server, client := serverCredentials(t)
	h := newHouse(t, houseOptions{network: "tcp", server: ServerOptions{TLS: TLSOptional, Credentials: server}})
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	h.dial(dialOptions{}).disconnect()
	h.closed()
	before := open()
	for range 5 {
		for _, o := range []dialOptions{{}, {tls: client}} {
			h.dial(o).disconnect()
			h.closed()
		}
		for _, greeted := range []bool{false, true} {
			conn, err := net.Dial("tcp", h.listener.Addr().String())
			require.NoError(t, err)
			if greeted {
				_, err = NewClient(conn)
				require.NoError(t, err)
			}
			conn.Close()
		}
	}
	require.Eventually(t, func() bool { return open() <= before }, patience, time.Millisecond, "descriptors: %d before", before)
}
