package qmp

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: what a client held is let go when it leaves, after its last command, last first; and a command that waits is told.
// Method: a client with two things held and a command that waits for ever closes; later registrations run at once.
func TestOnClose(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.negotiated()
		m.ask(`{"execute":"hold","arguments":{"gate":"first"}}{"execute":"hold","arguments":{"gate":"second"}}`)
		require.Empty(t, m.ask(`{"execute":"wait","arguments":{"gate":"never"}}`))
		var c *Connection
		for c = range s.server.connections {
		}
		c.OnClose(func() { s.note("forgotten") })()
		m.conn.Close()
		<-m.done
		require.Equal(t, []string{"gave up", "second", "first"}, s.closes)
		require.Error(t, c.Context().Err())
		c.OnClose(func() { s.note("at once") })
		require.Equal(t, "at once", s.closes[3])
		require.Zero(t, s.server.Connections())
	})
}

// Goal: Close ends everything: a command that waits, answers on their way, and whoever comes later. Method: Close with a command
// in flight and another behind it; the first is answered, the second is never begun.
func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.negotiated()
		m.ask(`{"execute":"wait","arguments":{"gate":"never"},"id":1}{"execute":"hold","arguments":{"gate":"x"},"id":2}`)
		s.server.Close()
		require.Equal(t, "{\"id\": 1, \"error\": {\"class\": \"GenericError\", \"desc\": \"context canceled\"}}\r\n(end)\r\n", m.took())
		require.Equal(t, []string{"gave up"}, s.closes)
		left, _ := net.Pipe()
		require.ErrorIs(t, s.server.ServeConn(left, Monitor{}), ErrClosed)
		_, err := left.Write(nil)
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

// Goal: Close does not wait for a client that does not read. Method: a deaf monitor with answers on their way; the clock
// tells how long it took.
func TestCloseWithDeafReader(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		deaf := s.connectDeaf(Monitor{})
		readLine(deaf)
		deaf.say(strings.Repeat(echo, 100))
		synctest.Wait()
		begun := time.Now()
		s.server.Close()
		require.Equal(t, flushMax, time.Since(begun))
	})
}

// Goal: quit is answered before the callback, which may start the end of the program. Method: a callback that starts
// Close.
func TestQuit(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		closed := make(chan struct{})
		s.server.options.Quit = func() {
			go func() {
				defer close(closed)
				s.server.Close()
			}()
		}
		m := s.negotiated()
		require.Equal(t, "{\"return\": {}}\r\n", m.ask(`{"execute":"quit"}`))
		<-closed
		require.Equal(t, "(end)\r\n", m.took())
	})
}

// Goal: the answer to quit has left before the callback, and a client that does not read delays the callback for a moment only. Method: a client
// that reads while the callback begins, and one that never does; the clock tells.
func TestQuitIsAnsweredFirst(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		inBubble(t, func(t *testing.T, s *stage) {
			called := make(chan struct{})
			s.server.options.Quit = func() { close(called) }
			m := s.connectDeaf(Monitor{})
			begun := time.Now()
			go m.say(`{"execute":"qmp_capabilities"}{"execute":"quit"}`)
			synctest.Wait()
			select {
			case <-called:
				t.Fatal("the answer has not left")
			default:
			}
			if !deaf {
				go m.collect()
			}
			<-called
			if deaf {
				require.Equal(t, flushMax, time.Since(begun))
				m.conn.Close()
				return
			}
			require.Zero(t, time.Since(begun))
			m.conn.Close()
			require.Contains(t, m.took(), "{\"return\": {}}\r\n{\"return\": {}}\r\n")
		})
	}
}

// Goal: a client that has said quit may close first, and holds up the end for a moment at most. Method: one that closes at once, one that never does; the clock tells.
func TestQuitterMayHangUpFirst(t *testing.T) {
	for _, closes := range []bool{true, false} {
		inBubble(t, func(t *testing.T, s *stage) {
			m := s.negotiated()
			m.ask(`{"execute":"quit"}`)
			begun := time.Now()
			if closes {
				time.AfterFunc(hangUpMax/2, func() { m.conn.Close() })
			}
			s.server.Close()
			if closes {
				require.Equal(t, hangUpMax/2, time.Since(begun))
			} else {
				require.Equal(t, hangUpMax, time.Since(begun))
			}
		})
	}
}

// Goal: between Quiet and Close monitors are connected, hear of events and get an answer to whatever they ask, and nothing is run. Method: one
// command in flight, one behind it, others later; a second quit; a monitor that comes too late.
func TestQuiet(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.negotiated()
		m.ask(`{"execute":"wait","arguments":{"gate":"never"},"id":1}{"execute":"hold","arguments":{"gate":"x"},"id":2}`)
		s.server.Quiet()
		s.server.Await()
		const late = "\"error\": {\"class\": \"GenericError\", \"desc\": \"The program is about to end, no command is run any more\"}}\r\n"
		require.Equal(t, "{\"id\": 1, \"error\": {\"class\": \"GenericError\", \"desc\": \"context canceled\"}}\r\n{\"id\": 2, "+late, m.ask(""))
		require.Equal(t, "{\"id\": 3, "+late, m.ask(`{"execute":"echo","id":3}`))
		require.Equal(t, "{\"return\": {}, \"id\": 4}\r\n", m.ask(`{"execute":"quit","id":4}`))
		s.server.Broadcast("GOING", nil)
		synctest.Wait()
		require.Contains(t, m.took(), `"event": "GOING"`)
		left, _ := net.Pipe()
		require.ErrorIs(t, s.server.ServeConn(left, Monitor{}), ErrClosed)
		s.server.Close()
		require.Equal(t, "(end)\r\n", m.took())
		require.Equal(t, []string{"gave up"}, s.closes)
	})
}

// halfClosed is a transport whose input ends while its output is still read.
type halfClosed struct {
	net.Conn
	input io.Reader
}

func (h halfClosed) Read(p []byte) (int, error) { return h.input.Read(p) }

// Goal: a client that has closed its sending side is answered, and is not waited for without end. Method: a command that
// is quick, and one that waits for ever.
func TestHalfClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		for _, c := range []struct {
			last, want string
			takes      time.Duration
		}{
			{echo, `{"return": {}}`, 0},
			{`{"execute":"wait","arguments":{"gate":"never"}}`, `{"error": {"class": "GenericError", "desc": "context canceled"}}`, goneAfter},
		} {
			ours, theirs := net.Pipe()
			m := &monitor{conn: ours}
			go m.collect()
			begun := time.Now()
			require.NoError(t, s.server.ServeConn(halfClosed{theirs, strings.NewReader(`{"execute":"qmp_capabilities"}` + c.last)}, Monitor{}))
			require.Equal(t, c.takes, time.Since(begun))
			lines := strings.Split(m.took(), "\r\n")
			require.Equal(t, []string{`{"return": {}}`, c.want, "(end)", ""}, lines[1:])
		}
	})
}

// Goal: a transport that fails ends the connection at once, whatever runs. Method: an error in place of input.
func TestTransportFails(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		ours, theirs := net.Pipe()
		m := &monitor{conn: ours}
		go m.collect()
		input := io.MultiReader(strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"wait","arguments":{"gate":"never"}}`), broken{})
		begun := time.Now()
		require.NoError(t, s.server.ServeConn(halfClosed{theirs, input}, Monitor{}))
		require.Zero(t, time.Since(begun))
		m.took()
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("reset") }

// Goal: commands can be sent from a shell. Method: socat, which closes its sending side at once, and Python with nothing but
// its socket.
func TestFromAShell(t *testing.T) {
	path := newStage().listen(t)
	const words = `{"execute":"qmp_capabilities"}{"execute":"echo","arguments":{"a":1}}`
	const python = `
import socket, sys, json
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile('rw')
assert 'QMP' in json.loads(f.readline())
for command in 'qmp_capabilities', 'query-version':
    json.dump({'execute': command, 'id': command}, f)
    f.flush()
    print(f.readline().strip())
`
	for _, c := range []struct {
		want  string
		words []string
	}{
		{`{"return": {"a": 1}}`, []string{"socat", "-t60", "-", "UNIX-CONNECT:" + path}},
		{`"package": "test"}, "id": "query-version"}`, []string{"python3", "-c", python, path}},
	} {
		command := exec.Command(c.words[0], c.words[1:]...)
		command.Stdin = strings.NewReader(words)
		output, err := command.CombinedOutput()
		require.NoError(t, err, string(output))
		require.Contains(t, string(output), c.want)
	}
}

// Goal: a client finds out that the server has gone, and one that comes too late why. Method: a command in flight while
// the server closes; a refused connection; a listener that greets with something else.
func TestClientEnds(t *testing.T) {
	s := newStage()
	path := s.listen(t)
	client := dial(t, path)
	failed := make(chan error, 1)
	go func() { failed <- client.Do(context.Background(), "wait", waitArgs2{"never"}, nil) }()
	require.NoError(t, client.DoOOB(t.Context(), "echo", nil, nil))
	for range connectionsMax - 1 {
		dial(t, path)
	}
	_, err := Dial(t.Context(), path)
	require.EqualError(t, err, "Too many monitors are connected, the limit is 32")
	s.server.Close()
	require.Error(t, <-failed)
	require.ErrorIs(t, client.Do(t.Context(), "echo", nil, nil), io.ErrUnexpectedEOF)
	_, open := <-client.Events()
	require.False(t, open)
	_, err = Dial(t.Context(), path)
	require.Error(t, err)
	ours, theirs := net.Pipe()
	go theirs.Write([]byte(`{"return": {}}`))
	_, err = NewClient(t.Context(), ours)
	require.EqualError(t, err, "the greeting of the monitor is none")
}
