package qmp

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// listen serves on a unix socket until the test ends.
func (s *stage) listen(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "monitor")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(listener, Monitor{}) }()
	t.Cleanup(func() {
		s.server.Close()
		require.ErrorIs(t, <-served, ErrClosed)
	})
	return path
}

// dial is a client that is closed when the test ends.
func dial(t *testing.T, path string) *Client {
	t.Helper()
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// Goal: client and server understand each other over a real socket. Method: a result, each class of error, an event.
func TestClientAndServer(t *testing.T) {
	s := newStage()
	client := dial(t, s.listen(t))
	require.Equal(t, "test", client.Greeting().Version.Package)
	var got map[string]int
	require.NoError(t, client.Do(t.Context(), "echo", map[string]int{"a": 1}, &got))
	require.Equal(t, map[string]int{"a": 1}, got)
	require.Equal(t, &Error{DeviceNotFound, "Device 'x' not found"}, client.Do(t.Context(), "gone", nil, nil))
	require.Equal(t, &Error{CommandNotFound, "The command nosuch has not been found"}, client.Do(t.Context(), "nosuch", nil, nil))
	require.Equal(t, &Detailed{&Error{GenericError, "busy"}, json.RawMessage(`{"by": 2}`)}, client.Do(t.Context(), "busy", nil, nil))
	require.NoError(t, client.Do(t.Context(), "emit", map[string]any{"name": "X", "data": []int{1}}, nil))
	event := <-client.Events()
	require.Equal(t, "X", event.Name)
	require.JSONEq(t, "[1]", string(event.Data))
}

// Goal: answers find whoever waits for them. Method: a command that waits, whose context ends, beside one out of band
// and one that waits in the queue behind it.
func TestClientOutOfOrder(t *testing.T) {
	s := newStage()
	client := dial(t, s.listen(t))
	waited := make(chan error, 1)
	impatient, giveUp := context.WithCancel(t.Context())
	go func() { waited <- client.Do(impatient, "wait", waitArgs2{"g"}, nil) }()
	require.NoError(t, client.DoOOB(t.Context(), "echo", nil, nil))
	giveUp()
	require.ErrorIs(t, <-waited, context.Canceled)
	require.NoError(t, client.DoOOB(t.Context(), "open", waitArgs2{"g"}, nil))
	require.NoError(t, client.Do(t.Context(), "echo", nil, nil))
}

type waitArgs2 struct {
	Gate string `json:"gate"`
}

// Goal: a command that the server cannot read does not wait for ever. Method: arguments over the bound.
func TestClientSendsTooMuch(t *testing.T) {
	client := dial(t, newStage().listen(t))
	err := client.Do(t.Context(), "echo", strings.Repeat("a", commandBytesMax), nil)
	require.EqualError(t, err, "JSON token size limit exceeded")
	require.Equal(t, err, client.Do(t.Context(), "echo", nil, nil))
}

// Goal: of events that nobody takes the newest are kept, and the client goes on. Method: more than there is room for.
func TestClientKeepsTheNewestEvents(t *testing.T) {
	s := newStage()
	client := dial(t, s.listen(t))
	const batch, batches = 1000, clientEventsMax/1000 + 2
	for range batches {
		require.NoError(t, client.Do(t.Context(), "emit", map[string]any{"name": "E", "count": batch}, nil))
	}
	require.Len(t, client.Events(), clientEventsMax)
	require.EqualValues(t, batch*batches-clientEventsMax, client.LostEvents())
}
