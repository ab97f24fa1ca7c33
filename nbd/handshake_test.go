package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// handshakeEnd is what handshake returned.
type handshakeEnd struct {
	result negotiated
	conn   net.Conn
	peer   *Peer
	err    error
}

// startHandshake serves the handshake on one end of a connection, tells the client that it has the export, and returns where the outcome will be.
func startHandshake(ctx context.Context, server net.Conn, o handshakeOptions) <-chan handshakeEnd {
	end := make(chan handshakeEnd, 1)
	go func() {
		var e handshakeEnd
		e.result, e.conn, e.peer, e.err = handshake(ctx, server, testExports(), o)
		if e.err == nil {
			_, e.err = e.conn.Write(e.result.welcome)
		}
		end <- e
	}()
	return end
}

// socketPair is a connected pair of sockets of the given network.
func socketPair(t testing.TB, network string) (client, server net.Conn) {
	address := "127.0.0.1:0"
	if network == "unix" {
		address = socketPath(t)
	}
	l, err := net.Listen(network, address)
	require.NoError(t, err)
	defer l.Close()
	client, err = net.Dial(network, l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// optionBytes is an option as it goes over the wire.
func optionBytes(o Option, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, MagicOption)
	b = binary.BigEndian.AppendUint32(b, uint32(o))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// clientHello is what a client sends first.
var clientHello = []byte{0, 0, 0, 3}

// Goal: a client gets from connect to transmission, and what it sends right behind GO stays in the socket for whoever
// serves it (GEN-7, HS-1, OPT-1, INF-7). Method: everything is sent in one piece before anything is read, on both kinds of sockets.
func TestHandshakeLeavesTransmissionAlone(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			client, server := socketPair(t, network)
			end := startHandshake(t.Context(), server, handshakeOptions{})
			b := append(clientHello[:4:4], optionBytes(OptStructuredReply, nil)...)
			b = append(b, optionBytes(OptGo, info("disk"))...)
			_, err := client.Write(append(b, "first request"...))
			require.NoError(t, err)
			e := <-end
			require.NoError(t, e.err)
			require.Same(t, server, e.conn)
			require.Equal(t, "disk", e.result.export.Name)
			require.True(t, e.result.structured)
			rest := make([]byte, len("first request"))
			_, err = io.ReadFull(server, rest)
			require.NoError(t, err)
			require.Equal(t, "first request", string(rest))
			if network == "unix" {
				require.Equal(t, &UnixCredentials{PID: int32(os.Getpid()), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, e.peer.Unix)
			}
		})
	}
}

// cancelling cancels the handshake while it is asked for an export, of which it has none.
type cancelling struct{ cancel context.CancelFunc }

func (c cancelling) list(*Peer) []exportInfo { return nil }

func (c cancelling) find(string, *Peer) (exportInfo, bool) {
	c.cancel()
	return exportInfo{}, false
}

// Goal: a handshake that failed by itself when the server was going tells why it failed: who was sent away for a bad certificate
// a moment before the end is news. Method: a client that is refused, and the cancellation, at the same time.
func TestHandshakeFailsWhileItIsCancelled(t *testing.T) {
	client, server := socketPair(t, "unix")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := client.Write(append(clientHello[:4:4], optionBytes(OptExportName, []byte("none"))...))
	require.NoError(t, err)
	_, _, _, err = handshake(ctx, server, cancelling{cancel}, handshakeOptions{})
	require.ErrorIs(t, err, ErrRefused)
}

// Goal: small replies are not held back by the kernel (GEN-3). Method: the socket option is read back after it was set
// otherwise.
func TestHandshakeSetsNoDelay(t *testing.T) {
	client, server := socketPair(t, "tcp")
	require.NoError(t, server.(*net.TCPConn).SetNoDelay(false))
	end := startHandshake(t.Context(), server, handshakeOptions{})
	c, err := NewClient(client)
	require.NoError(t, err)
	_, err = c.Go("disk")
	require.NoError(t, err)
	require.NoError(t, (<-end).err)
	rc, err := server.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) {
		v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
		require.NoError(t, err)
		require.Equal(t, 1, v)
	}))
}

// pipes is a connection made of two pipes, as inetd may hand one over.
type pipes struct {
	net.Conn // for the methods that do not matter
	in, out  *os.File
}

func (p pipes) Read(b []byte) (int, error)         { return p.in.Read(b) }
func (p pipes) Write(b []byte) (int, error)        { return p.out.Write(b) }
func (p pipes) Close() error                       { return errors.Join(p.in.Close(), p.out.Close()) }
func (p pipes) RemoteAddr() net.Addr               { return nil }
func (p pipes) SetDeadline(d time.Time) error      { return p.in.SetDeadline(d) }
func (p pipes) SetWriteDeadline(d time.Time) error { return p.out.SetDeadline(d) }

// Goal: any byte channel will do (GEN-4). Method: the handshake over a pair of pipes.
func TestHandshakeOverPipes(t *testing.T) {
	clientIn, serverOut, err := os.Pipe()
	require.NoError(t, err)
	serverIn, clientOut, err := os.Pipe()
	require.NoError(t, err)
	client, server := pipes{in: clientIn, out: clientOut}, pipes{in: serverIn, out: serverOut}
	defer client.Close()
	defer server.Close()
	end := startHandshake(t.Context(), server, handshakeOptions{})
	c, err := NewClient(client)
	require.NoError(t, err)
	_, err = c.Go("disk")
	require.NoError(t, err)
	require.NoError(t, (<-end).err)
}

// Goal: who ends a handshake, and why, can be told apart (GEN-8, GEN-9, OPT-7, ABT-1, ABT-2, EN-2, BAD-1, BAD-2, BAD-3, BAD-5). Method:
// each ending is provoked; the client must find the connection closed.
func TestHandshakeEndings(t *testing.T) {
	cases := []struct {
		name string
		send []byte
		want error
	}{
		{"EOF before the flags", nil, ErrClientLeft},
		{"half of the flags", clientHello[:2], ErrClientLeft},
		{"EOF between options", clientHello, ErrClientLeft},
		{"half an option", append(clientHello[:4:4], optionBytes(OptGo, info("disk"))[:20]...), ErrClientLeft},
		{"unknown flags", []byte{0, 0, 0, 7}, ErrProtocol},
		{"bad magic", append(clientHello[:4:4], make([]byte, 16)...), ErrProtocol},
		{"endless option", append(clientHello[:4:4], optionBytes(OptGo, nil)[:12]...), ErrProtocol},
		{"abort", append(clientHello[:4:4], optionBytes(OptAbort, nil)...), ErrAborted},
		{"no such export", append(clientHello[:4:4], optionBytes(OptExportName, []byte("no"))...), ErrRefused},
	}
	cases[6].send = append(cases[6].send, 0xff, 0xff, 0xff, 0xff)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			client, server := socketPair(t, "unix")
			end := startHandshake(t.Context(), server, handshakeOptions{})
			_, err := client.Write(c.send)
			require.NoError(t, err)
			require.NoError(t, client.(*net.UnixConn).CloseWrite())
			e := <-end
			require.ErrorIs(t, e.err, c.want)
			_, err = server.Read(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
}

// Goal: a client that aborts and does not wait for the answer has still aborted (ABT-2). Method: it closes before the
// server writes.
func TestAbortWithoutReadingTheAnswer(t *testing.T) {
	client, server := net.Pipe()
	end := startHandshake(t.Context(), server, handshakeOptions{})
	_, err := io.ReadFull(client, make([]byte, 18))
	require.NoError(t, err)
	_, err = client.Write(append(clientHello[:4:4], optionBytes(OptAbort, nil)...))
	require.NoError(t, err)
	client.Close()
	require.ErrorIs(t, (<-end).err, ErrAborted)
}

// Goal: the data of options that are not wanted is skipped, however long, and the next option is understood (OPT-3, OPT-8,
// BAD-4). Method: an unknown option of 1 MiB, a known one of 1 MiB, then GO, over a socket.
func TestLongOptionsAreSkipped(t *testing.T) {
	client, server := socketPair(t, "unix")
	end := startHandshake(t.Context(), server, handshakeOptions{})
	c, err := NewClient(client)
	require.NoError(t, err)
	refused := func(o Option, want Reply) {
		var e *OptionError
		require.ErrorAs(t, c.Ask(o, make([]byte, 1<<20), nil), &e)
		require.Equal(t, want, e.Reply)
	}
	refused(Option(1234), RepErrUnsup)
	refused(OptList, RepErrInvalid)
	refused(OptSetMetaContext, RepErrInvalid)
	refused(OptGo, RepErrInvalid)
	_, err = c.Go("disk")
	require.NoError(t, err)
	require.NoError(t, (<-end).err)
}

// Goal: hundreds of options are no offence (OPT-9, BAD-14). Method: 200 options, then GO.
func TestManyOptions(t *testing.T) {
	client, server := socketPair(t, "unix")
	end := startHandshake(t.Context(), server, handshakeOptions{})
	c, err := NewClient(client)
	require.NoError(t, err)
	for range 200 {
		_, err := c.Info("disk")
		require.NoError(t, err)
	}
	_, err = c.Go("disk")
	require.NoError(t, err)
	require.NoError(t, (<-end).err)
}

// Goal: whatever a client does not do, the handshake ends in time, TLS included (HS-5, TLS-11, BAD-2). Method: clients that
// stop at each stage, in a bubble where the clock is the test's.
func TestHandshakeDeadline(t *testing.T) {
	stages := []struct {
		name string
		send []byte
	}{
		{"nothing", nil},
		{"half of the flags", clientHello[:3]},
		{"flags", clientHello},
		{"half an option", append(clientHello[:4:4], optionBytes(OptGo, info("disk"))[:20]...)},
		{"TLS and silence", append(clientHello[:4:4], optionBytes(OptStartTLS, nil)...)},
	}
	config := serverTLS(t, newAuthority(t), false)
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer client.Close()
				go io.Copy(io.Discard, client)
				began := time.Now()
				end := startHandshake(t.Context(), server, handshakeOptions{tls: TLSOptional, credentials: config})
				_, err := client.Write(stage.send)
				require.NoError(t, err)
				require.ErrorIs(t, (<-end).err, ErrDeadline)
				require.Equal(t, handshakeDeadlineDefault, time.Since(began))
			})
		})
	}
}

// Goal: a client that does not read its replies is held to the deadline too (HS-5). Method: LIST to a pipe nobody reads,
// with a deadline of the listener's own.
func TestHandshakeDeadlineOnWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		end := startHandshake(t.Context(), server, handshakeOptions{deadline: time.Second})
		_, err := io.ReadFull(client, make([]byte, 18))
		require.NoError(t, err)
		_, err = client.Write(append(clientHello[:4:4], optionBytes(OptList, nil)...))
		require.NoError(t, err)
		require.ErrorIs(t, (<-end).err, ErrDeadline)
	})
}

// Goal: clients that dawdle cost a few KiB each. Method: many that have announced the most data that is kept, and stop; the
// heap and the stacks are measured.
func TestMemoryOfTheHandshake(t *testing.T) {
	const clients = 200
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := used()
	ends := make([]<-chan handshakeEnd, clients)
	ctx, cancel := context.WithCancel(t.Context())
	for i := range ends {
		client, server := net.Pipe()
		defer client.Close()
		ends[i] = startHandshake(ctx, server, handshakeOptions{deadline: time.Hour})
		c, err := NewClient(client)
		require.NoError(t, err)
		// A pipe passes bytes on one by one: once the last is written, the server waits for more of them.
		_, err = c.Conn().Write(append(optionBytes(OptSetMetaContext, make([]byte, 16<<10))[:1000], 0))
		require.NoError(t, err)
	}
	require.Less(t, (used()-before)/clients, uint64(32<<10))
	cancel()
	for _, end := range ends {
		require.ErrorIs(t, (<-end).err, ErrCancelled)
	}
}

// Goal: no deadline is left behind for the transmission. Method: a byte is sent long after the handshake's deadline.
func TestDeadlineEndsWithTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		end := startHandshake(t.Context(), server, handshakeOptions{deadline: time.Second})
		c, err := NewClient(client)
		require.NoError(t, err)
		_, err = c.Go("disk")
		require.NoError(t, err)
		e := <-end
		require.NoError(t, e.err)
		time.AfterFunc(time.Hour, func() { client.Write([]byte{7}) })
		_, err = e.conn.Read(make([]byte, 1))
		require.NoError(t, err)
	})
}

// Goal: a server that goes does not wait for clients that haggle. Method: the context is cancelled while the client is
// silent, in clear and within the TLS handshake.
func TestHandshakeIsCancelled(t *testing.T) {
	config := serverTLS(t, newAuthority(t), false)
	for _, o := range []Option{OptStructuredReply, OptStartTLS} {
		ctx, cancel := context.WithCancelCause(t.Context())
		client, server := socketPair(t, "unix")
		end := startHandshake(ctx, server, handshakeOptions{tls: TLSOptional, credentials: config})
		c, err := NewClient(client)
		require.NoError(t, err)
		require.NoError(t, c.Ask(o, nil, nil))
		why := errors.New("going")
		cancel(why)
		err = (<-end).err
		require.ErrorIs(t, err, ErrCancelled)
		require.ErrorIs(t, err, why)
	}
}
