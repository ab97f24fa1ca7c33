package nfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/wire"
)

// portMapper answers the calls of one connection: it has a port for each version, "" or 0 for none; mismatch has it know version 2 only.
type portMapper struct {
	address  string
	port     uint32
	mismatch bool

	asked []uint32 // versions, in their order
}

func (m *portMapper) answer(call []byte) []byte {
	version := binary.BigEndian.Uint32(call[16:])
	m.asked = append(m.asked, version)
	reply := append([]byte(nil), call[:4]...)
	reply = append(reply, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	switch {
	case version == 3 && m.mismatch:
		return append(reply, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2)
	case version == 3:
		reply = binary.BigEndian.AppendUint32(append(reply, 0, 0, 0, 0), uint32(len(m.address)))
		return append(reply, append([]byte(m.address), make([]byte, wire.Padding(len(m.address)))...)...)
	}
	return binary.BigEndian.AppendUint32(append(reply, 0, 0, 0, 0), m.port)
}

// serveLoop ends with the connection.
func (m *portMapper) serveLoop(l net.Listener, done chan struct{}) {
	defer close(done)
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		call, err := readRecord(conn)
		if err != nil {
			return
		}
		reply := m.answer(call)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// Goal: over IPv6 a program is looked for where it listens for IPv6, which may be another port than that for IPv4, and port mappers that know nothing of that are asked the old way. Method: a
// port mapper with a table of answers, at ::1 and at 127.0.0.1.
func TestPortsOverIPv6(t *testing.T) {
	for _, c := range []struct {
		host   string
		mapper portMapper
		want   int // 0 = errNoPort
		asked  []uint32
	}{
		{"::1", portMapper{address: "::.78.80", port: 7}, 20048, []uint32{3}},
		{"::1", portMapper{address: "::1.8.1"}, 2049, []uint32{3}},
		{"::1", portMapper{port: 7}, 7, []uint32{3, 2}},
		{"::1", portMapper{port: 7, mismatch: true}, 7, []uint32{3, 2}},
		{"::1", portMapper{address: "nowhere", port: 7}, 7, []uint32{3, 2}},
		{"::1", portMapper{}, 0, []uint32{3, 2}},
		{"127.0.0.1", portMapper{address: "::.78.80", port: 7}, 7, []uint32{2}},
		{"127.0.0.1", portMapper{}, 0, []uint32{2}},
	} {
		t.Run(fmt.Sprint(c.host, c.mapper), func(t *testing.T) {
			l, err := net.Listen("tcp", net.JoinHostPort(c.host, "0"))
			require.NoError(t, err)
			defer l.Close()
			done := make(chan struct{})
			go c.mapper.serveLoop(l, done)
			conn, err := net.Dial("tcp", l.Addr().String())
			require.NoError(t, err)
			port, err := askPort(context.Background(), conn, wire.ProgramMount)
			if c.want == 0 {
				require.ErrorIs(t, err, errNoPort)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, c.want, port)
			<-done
			require.Equal(t, c.asked, c.mapper.asked)
		})
	}
}
