package nbd

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what must come before it gives up; no test measures with it.
const patience = 60 * time.Second

// dialOptions say what a client negotiates.
type dialOptions struct {
	export   string
	style    replyStyle
	contexts []string
	unaware  bool // do not ask for the block sizes
	tls      *tls.Config
	old      bool // by EXPORT_NAME
}

// wireClient is a client in the transmission phase that speaks bytes and checks all that it hears.
// It is for one goroutine.
type wireClient struct {
	t        testing.TB
	conn     net.Conn
	remote   RemoteExport
	contexts []RemoteContext
	cookie   uint64
	replyReader
}

// negotiate brings conn into the transmission phase.
func negotiate(conn net.Conn, o dialOptions) (*wireClient, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	c, err := NewClient(conn)
	if err != nil {
		return nil, err
	}
	if o.tls != nil {
		if err := c.Ask(OptStartTLS, nil, nil); err != nil {
			return nil, err
		}
		t := tls.Client(conn, o.tls)
		if err := t.Handshake(); err != nil {
			return nil, err
		}
		c.conn = t
	}
	w := &wireClient{cookie: 0xfeed_0000_0000_0000}
	w.style, w.pending = o.style, map[uint64]*pendingReply{}
	if err := w.haggle(c, o); err != nil {
		return nil, err
	}
	w.conn = c.Conn()
	w.in = bufio.NewReaderSize(w.conn, 64<<10)
	return w, nil
}

func (w *wireClient) haggle(c *Client, o dialOptions) (err error) {
	switch o.style {
	case styleStructured:
		err = c.StructuredReplies()
	case styleExtended:
		err = c.ExtendedHeaders()
	}
	if err != nil {
		return err
	}
	if len(o.contexts) > 0 {
		if w.contexts, err = c.SetContexts(o.export, o.contexts...); err != nil {
			return err
		}
		for _, m := range w.contexts {
			w.ids = append(w.ids, m.ID)
		}
	}
	switch {
	case o.old:
		w.remote, err = c.ExportName(o.export)
	case o.unaware:
		err = c.Ask(OptGo, infoData(o.export), func(_ Reply, data []byte) error {
			return w.remote.learn(Info(binary.BigEndian.Uint16(data)), data[2:])
		})
	default:
		w.remote, err = c.Go(o.export)
	}
	return err
}

// encode notes a request as pending and returns it as it goes over the wire. The flag that a style asks for with a payload
// is the caller's.
func (w *wireClient) encode(h header, payload []byte) []byte {
	w.expect(h, payload)
	return append(encodeHeader(w.style, h), payload...)
}

// encodeHeader is the header of a request.
func encodeHeader(style replyStyle, h header) []byte {
	magic := MagicRequest
	if style == styleExtended {
		magic = MagicExtendedRequest
	}
	b := binary.BigEndian.AppendUint32(nil, magic)
	b = binary.BigEndian.AppendUint16(b, uint16(h.flags))
	b = binary.BigEndian.AppendUint16(b, uint16(h.command))
	b = binary.BigEndian.AppendUint64(b, h.cookie)
	b = binary.BigEndian.AppendUint64(b, h.offset)
	if style == styleExtended {
		return binary.BigEndian.AppendUint64(b, h.length)
	}
	return binary.BigEndian.AppendUint32(b, uint32(h.length))
}

// expect notes a request whose reply will come.
func (w *wireClient) expect(h header, payload []byte) {
	p := &pendingReply{statusOf: h.length, ids: w.ids}
	p.header = h
	if h.command == CmdBlockStatus && h.flags&CmdFlagPayloadLen != 0 && len(payload) >= 8 {
		p.statusOf, p.ids = binary.BigEndian.Uint64(payload), nil
		for rest := payload[8:]; len(rest) >= 4; rest = rest[4:] {
			p.ids = append(p.ids, binary.BigEndian.Uint32(rest))
		}
	}
	if h.command != CmdDisc {
		w.pending[h.cookie] = p
	}
}

// header is a request with a cookie of its own.
func (w *wireClient) header(command Command, flags CommandFlags, offset, length uint64) header {
	w.cookie++
	return header{command: command, flags: flags, cookie: w.cookie, offset: offset, length: length}
}

// request is a request with the right flag for its payload, as bytes, and its cookie.
func (w *wireClient) request(command Command, flags CommandFlags, offset, length uint64, payload []byte) ([]byte, uint64) {
	if payload != nil {
		if w.style == styleExtended {
			flags |= CmdFlagPayloadLen
		}
		length = uint64(len(payload))
	}
	h := w.header(command, flags, offset, length)
	return w.encode(h, payload), h.cookie
}

// post sends a request and returns its cookie.
func (w *wireClient) post(command Command, flags CommandFlags, offset, length uint64, payload []byte) uint64 {
	w.t.Helper()
	b, cookie := w.request(command, flags, offset, length, payload)
	w.send(b)
	return cookie
}

// send sends bytes as they are.
func (w *wireClient) send(b []byte) {
	w.t.Helper()
	_, err := w.conn.Write(b)
	require.NoError(w.t, err)
}

// await reads until the reply with the cookie is complete. Other replies that get complete are kept out: whoever
// wants several uses awaitAll.
func (w *wireClient) await(cookie uint64) *answer {
	w.t.Helper()
	for {
		a, err := w.next()
		require.NoError(w.t, err)
		if a != nil && a.header.cookie == cookie {
			return a
		}
	}
}

// awaitAll reads until nothing is pending and returns the answers by cookie.
func (w *wireClient) awaitAll() map[uint64]*answer {
	w.t.Helper()
	all := map[uint64]*answer{}
	for len(w.pending) > 0 {
		a, err := w.next()
		require.NoError(w.t, err)
		if a != nil {
			all[a.header.cookie] = a
		}
	}
	return all
}

// do sends a request and returns its answer.
func (w *wireClient) do(command Command, flags CommandFlags, offset, length uint64, payload []byte) *answer {
	w.t.Helper()
	return w.await(w.post(command, flags, offset, length, payload))
}

// write, read and flush are requests that must succeed.
func (w *wireClient) write(offset uint64, p []byte) {
	w.t.Helper()
	w.ok(w.do(CmdWrite, 0, offset, 0, p))
}

func (w *wireClient) read(offset, length uint64) []byte {
	w.t.Helper()
	return w.ok(w.do(CmdRead, 0, offset, length, nil)).data
}

func (w *wireClient) flush() {
	w.t.Helper()
	w.ok(w.do(CmdFlush, 0, 0, 0, nil))
}

func (w *wireClient) ok(a *answer) *answer {
	w.t.Helper()
	require.Equal(w.t, Errno(0), a.errno, "%v: %s", a.header.command, a.text)
	return a
}

// refused requires that an answer is the error, and in words where the style has room for them (CH-14).
func (w *wireClient) refused(want Errno, a *answer) {
	w.t.Helper()
	require.Equal(w.t, want.String(), a.errno.String(), "%v %v: %s", a.header.command, a.header.flags, a.text)
	if w.style != styleSimple {
		require.NotEmpty(w.t, a.text)
	}
}

// alive requires that the connection is in step: a request of its own is answered, and nothing comes before.
func (w *wireClient) alive() {
	w.t.Helper()
	require.Empty(w.t, w.pending)
	cookie := w.post(CmdRead, 0, 0, max(1, uint64(w.remote.MinBlock)), nil)
	for {
		a, err := w.next()
		require.NoError(w.t, err)
		if a != nil {
			require.Equal(w.t, cookie, a.header.cookie)
			w.ok(a)
			return
		}
	}
}

// atEnd requires that the server has closed, politely or by reset, and sent nothing more.
func (w *wireClient) atEnd() {
	w.t.Helper()
	a, err := w.next()
	require.Nil(w.t, a)
	require.True(w.t, isEnd(err), "%v", err)
}

// isEnd reports whether an error of next means that the server closed between two replies.
func isEnd(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout()
}

// disconnect says DISC, and requires that what was pending is answered and then the connection is closed.
func (w *wireClient) disconnect() {
	w.t.Helper()
	w.post(CmdDisc, 0, 0, 0, nil)
	w.awaitAll()
	w.atEnd()
	w.conn.Close()
}

// fill is n bytes, none of them zero, that tell seed and, within a period that fits no power of two, place.
func fill(seed byte, n int) []byte {
	const period = 65521
	p := make([]byte, n)
	for i := range min(n, period) {
		p[i] = byte((i*7+i>>8*13+int(seed)*31)%255) + 1
	}
	for done := period; done < n; {
		done += copy(p[done:], p[:period])
	}
	return p
}

// sameBytes compares without printing megabytes.
func sameBytes(t testing.TB, want, got []byte) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	require.Len(t, got, len(want))
	for i := range want {
		if want[i] != got[i] {
			require.Fail(t, "bytes differ", fmt.Sprintf("first at %d: want %#x, got %#x", i, want[i], got[i]))
		}
	}
}
