package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// scriptedServer is a connection to a server that says what it was going to say, whatever it hears.
type scriptedServer struct {
	net.Conn // for the methods that do not matter
	says     *bytes.Reader
}

func newScriptedServer(says []byte) scriptedServer {
	return scriptedServer{says: bytes.NewReader(says)}
}

func (s scriptedServer) Read(b []byte) (int, error)  { return s.says.Read(b) }
func (s scriptedServer) Write(b []byte) (int, error) { return len(b), nil }
func (s scriptedServer) Close() error                { return nil }
func (s scriptedServer) SetDeadline(time.Time) error { return nil }

// replyBytes is an option reply as it goes over the wire.
func replyBytes(o Option, t Reply, data []byte) []byte {
	var n negotiation
	n.reply(o, t, data)
	return n.out
}

// Goal: the list shows all that a server tells (LST-3). Method: our own handshake behind ListExports, in clear and with TLS.
func TestListExports(t *testing.T) {
	a := newAuthority(t)
	names := func(exports []RemoteExport) (all []string) {
		for _, e := range exports {
			all = append(all, e.Name)
		}
		return all
	}
	for _, secure := range []bool{false, true} {
		client, server := socketPair(t, "unix")
		o := handshakeOptions{tls: TLSOptional, credentials: serverTLS(t, a, false)}
		end := startHandshake(t.Context(), server, o)
		var lo ListOptions
		want := []string{"disk", "rough"}
		if secure {
			lo.TLS = clientTLS(t, a, "")
			want = append(want, "secret")
		}
		exports, err := ListExports(t.Context(), client, lo)
		require.NoError(t, err)
		require.ErrorIs(t, (<-end).err, ErrAborted)
		require.Equal(t, want, names(exports))
		require.Equal(t, RemoteExport{
			Name: "disk", Description: "the system", Known: true, Size: 1 << 20, Flags: 0x8ed,
			MinBlock: 1, PreferredBlock: 4096, MaxPayload: 32 << 20,
			Contexts: []RemoteContext{
				{0, "base:allocation"}, {0, "qemu:allocation-depth"}, {0, "qemu:dirty-bitmap:one"}, {0, "qemu:dirty-bitmap:two"},
			},
		}, exports[0])
	}
}

// Goal: old servers are listed as far as they go. Method: one that knows LIST only, one that refuses an export.
func TestListExportsOfOldServers(t *testing.T) {
	export := append(raw(uint32(4), "disk"), "text"...)
	says := append(greeting(), replyBytes(OptStructuredReply, RepErrUnsup, nil)...)
	says = append(says, replyBytes(OptList, RepServer, export)...)
	says = append(says, replyBytes(OptList, RepAck, nil)...)
	says = append(says, replyBytes(OptInfo, RepErrUnsup, []byte("what?"))...)
	exports, err := ListExports(t.Context(), newScriptedServer(says), ListOptions{})
	require.NoError(t, err)
	require.Equal(t, []RemoteExport{{Name: "disk", Description: "text"}}, exports)
}

// Goal: a server that does not keep to the protocol is found out, and can neither hang nor fill the client. Method: what bad
// servers say, each ending in the right error.
func TestClientAgainstBadServers(t *testing.T) {
	hello := greeting()
	structured := append(hello[:18:18], replyBytes(OptStructuredReply, RepAck, nil)...)
	list := func(t Reply, data []byte) []byte {
		return append(structured[:len(structured):len(structured)], replyBytes(OptList, t, data)...)
	}
	one := append(list(RepServer, raw(uint32(1), "x")), replyBytes(OptList, RepAck, nil)...)
	info := func(parts ...any) []byte {
		return append(one[:len(one):len(one)], replyBytes(OptInfo, RepInfo, raw(parts...))...)
	}
	known := info(uint16(InfoExport), uint32(0), uint32(512), uint16(1))
	described := append(known[:len(known):len(known)], replyBytes(OptInfo, RepAck, nil)...)
	oldstyle := binary.BigEndian.AppendUint64([]byte("NBDMAGIC"), MagicOldstyle)
	endless := structured[:len(structured):len(structured)]
	for range clientRepliesMax + 1 {
		endless = append(endless, replyBytes(OptList, RepServer, raw(uint32(1), "x"))...)
	}
	huge := structured[:len(structured):len(structured)]
	for range clientBytesMax/stringMax + 1 {
		huge = append(huge, replyBytes(OptList, RepServer, raw(uint32(4096), strings.Repeat("x", 4096)))...)
	}
	tooLong := list(RepServer, nil)
	binary.BigEndian.PutUint32(tooLong[len(tooLong)-4:], 0xffffffff)

	cases := []struct {
		name string
		says []byte
		want string
	}{
		{"silence", nil, "EOF"},
		{"not NBD", []byte("SSH-2.0-OpenSSH_9.2p1 Debian"), "not an NBD server"},
		{"oldstyle", append(oldstyle, make([]byte, 136)...), "oldstyle"},
		{"not fixed", append([]byte("NBDMAGICIHAVEOPT"), 0, 2), "fixed newstyle"},
		{"another option", append(hello[:18:18], replyBytes(OptGo, RepAck, nil)...), "reply to GO after STRUCTURED_REPLY"},
		{"bad magic", append(hello[:18:18], make([]byte, 20)...), "reply magic"},
		{"ACK with data", append(hello[:18:18], replyBytes(OptStructuredReply, RepAck, []byte("x"))...), "ACK"},
		{"reply to nothing", append(hello[:18:18], replyBytes(OptStructuredReply, RepServer, nil)...), "SERVER in reply to STRUCTURED_REPLY"},
		{"cut off", list(RepServer, raw(uint32(1), "x")), "EOF"},
		{"too long", tooLong, "limit"},
		{"endless", endless, "more than 10000 replies"},
		{"huge", huge, "more than 16777216 bytes"},
		{"name too long", list(RepServer, raw(uint32(9), "x")), "name of 9 bytes"},
		{"name with NUL", list(RepServer, raw(uint32(1), "\x00")), "NUL"},
		{"name not UTF-8", list(RepServer, raw(uint32(1), "\xff")), "UTF-8"},
		{"no name", list(RepServer, raw(uint16(0))), "SERVER of 2 bytes"},
		{"wrong kind", list(RepMetaContext, raw(uint32(0))), "META_CONTEXT"},
		{"info too short", info(uint16(InfoExport), uint32(0)), "INFO_EXPORT of 4 bytes"},
		{"info without type", append(one[:len(one):len(one)], replyBytes(OptInfo, RepInfo, []byte{1})...), "INFO of 1 bytes"},
		{"info twice", append(known[:len(known):len(known)], replyBytes(OptInfo, RepInfo, raw(uint16(0), uint32(0), uint32(0), uint16(0)))...), "INFO_EXPORT"},
		{"no info", append(one[:len(one):len(one)], replyBytes(OptInfo, RepAck, nil)...), "without INFO_EXPORT"},
		{"block sizes", info(uint16(InfoBlockSize), uint32(3), uint32(4096), uint32(1<<20)), "block sizes"},
		{"block sizes too short", info(uint16(InfoBlockSize), uint32(1)), "INFO_BLOCK_SIZE of 4 bytes"},
		{"description", info(uint16(InfoDescription), "\xff"), "UTF-8"},
		{"context", append(described[:len(described):len(described)], replyBytes(OptListMetaContext, RepMetaContext, raw(uint32(0), "\xff"))...), "UTF-8"},
		{"context without id", append(described[:len(described):len(described)], replyBytes(OptListMetaContext, RepMetaContext, nil)...), "META_CONTEXT of 0 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := ListExports(t.Context(), newScriptedServer(c.says), ListOptions{})
			require.ErrorContains(t, err, c.want)
			if c.want != "EOF" {
				require.ErrorIs(t, err, ErrServer)
			}
		})
	}
}

// Goal: a refusal tells what the server said, whatever that is. Method: error replies with a text, none, and garbage.
func TestOptionErrors(t *testing.T) {
	for text, want := range map[string]string{
		"no such thing": "server refused LIST: ERR_POLICY: no such thing",
		"":              "server refused LIST: ERR_POLICY",
		"\xff":          `server refused LIST: ERR_POLICY: (text "\xff": not UTF-8)`,
	} {
		c, err := NewClient(newScriptedServer(append(greeting(), replyBytes(OptList, RepErrPolicy, []byte(text))...)))
		require.NoError(t, err)
		_, err = c.List()
		require.EqualError(t, err, want)
	}
}

// Goal: listing ends when it takes too long or is no longer wanted. Method: a server that says nothing, in a bubble where
// the clock is the test's; then a cancelled context.
func TestListExportsDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		began := time.Now()
		_, err := ListExports(t.Context(), client, ListOptions{})
		require.Error(t, err)
		require.Equal(t, listDeadlineDefault, time.Since(began))
	})
	ctx, cancel := context.WithCancel(t.Context())
	client, server := socketPair(t, "unix")
	done := make(chan error, 1)
	go func() {
		_, err := ListExports(ctx, client, ListOptions{})
		done <- err
	}()
	_, err := server.Write(greeting())
	require.NoError(t, err)
	_, err = io.ReadFull(server, make([]byte, 4))
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// FuzzClient: no server can make the client panic, hang or hold more than its limits. Method: the server's side of the
// conversation is the input; the seeds are a good server's and bad ones'.
func FuzzClient(f *testing.F) {
	good := append(greeting(), replyBytes(OptStructuredReply, RepAck, nil)...)
	good = append(good, replyBytes(OptList, RepServer, raw(uint32(4), "disk", "text"))...)
	good = append(good, replyBytes(OptList, RepAck, nil)...)
	f.Add(good)
	f.Add(append(good[:len(good):len(good)], replyBytes(OptInfo, RepErrUnknown, []byte("gone"))...))
	f.Add([]byte("NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53"))
	f.Fuzz(func(t *testing.T, says []byte) {
		exports, err := ListExports(t.Context(), newScriptedServer(says), ListOptions{})
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(exports), clientRepliesMax)
		for _, e := range exports {
			require.NoError(t, checkString(e.Name))
			require.NoError(t, checkString(e.Description))
		}
	})
}
