package qmp

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const echo = `{"execute":"echo"}`

// Goal: what is too large is refused with an error, and what follows is understood. Method: one command over each
// bound, at it, and an ordinary one behind.
func TestCommandBounds(t *testing.T) {
	padded := func(n int) string {
		head, tail := `{"execute":"echo","id":"`, `"}`
		return head + strings.Repeat("a", n-len(head)-len(tail)) + tail
	}
	list := func(tokens int) string { // 9 tokens beside the list, which has 2 and two for each element but the first
		return `{"execute":"echo","id":[1` + strings.Repeat(",1", (tokens-12)/2) + `]}`
	}
	nested := func(n int) string {
		return `{"execute":"echo","id":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
	}
	for _, c := range []struct {
		name, input, want string
		answers           int
	}{
		{"longest", padded(commandBytesMax), "", 1},
		{"too long", padded(commandBytesMax + 1), "JSON token size limit exceeded", 1},
		{"far too long", padded(4 * commandBytesMax), "JSON token size limit exceeded", 1},
		{"white space", strings.Repeat(" ", 2*commandBytesMax) + echo, "", 1},
		{"most tokens", list(commandTokensMax), "", 1},
		{"too many tokens", list(commandTokensMax + 2), "JSON token count limit exceeded", 0},
		{"deepest", nested(nestingMax), "", 1},
		{"too deep", nested(nestingMax + 1), "JSON nesting depth limit exceeded", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *stage) {
				m := s.negotiated()
				answers := strings.Split(strings.TrimSuffix(m.ask(c.input), "\r\n"), "\r\n")
				if c.want == "" {
					require.Contains(t, answers[0], `"return"`)
				} else {
					require.Contains(t, answers[0], c.want)
				}
				if c.answers > 0 && c.want == "" {
					require.Len(t, answers, c.answers)
				}
				after := m.ask("\n" + echo)
				require.True(t, strings.HasSuffix(after, "{\"return\": {}}\r\n"), after)
				m.conn.Close()
			})
		})
	}
}

// Goal: input may be split anywhere. Method: a dialogue byte by byte gives what it gives in one piece.
func TestByteByByte(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.negotiated()
		script := `{'execute':'echo','id':"\u00e9\ud83d\ude00","arguments":{"a":[-1.5e+3, true, null ] } }{"execute":"nosuch"} 17 @ {}`
		whole := m.ask(script)
		for n := range len(script) {
			_, err := m.conn.Write([]byte{script[n]})
			require.NoError(t, err)
		}
		require.Equal(t, whole, m.took())
		m.conn.Close()
	})
}

// Goal: thousands of commands may be sent before the first answer is read, and all are answered in order. Method: 5,000
// with an id each.
func TestPipelined(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.negotiated()
		var commands, want strings.Builder
		for n := range 5000 {
			fmt.Fprintf(&commands, `{"execute":"echo","id":%d}`, n)
			fmt.Fprintf(&want, "{\"return\": {}, \"id\": %d}\r\n", n)
		}
		require.Equal(t, want.String(), m.ask(commands.String()))
		m.conn.Close()
	})
}

// Goal: behind a command that waits only so many others are read. Method: commands are sent one by one until a write is
// not taken any more.
func TestQueueIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.negotiated()
		m.ask(`{"execute":"wait","arguments":{"gate":"g"}}`)
		sent := 0
		for ; sent < 3*queueLenMax; sent++ {
			m.conn.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := m.conn.Write([]byte(echo)); err != nil {
				break
			}
		}
		require.Equal(t, queueLenMax+1, sent) // one is in the reader's hand
		close(s.gate("g"))
		require.Equal(t, 1+sent, strings.Count(m.took(), "\r\n"))
		m.conn.Close()
	})
}

// Goal: commands that wait are bounded by their memory as well. Method: as above, with the largest ones.
func TestQueueIsBoundedByWeight(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.negotiated()
		m.ask(`{"execute":"wait","arguments":{"gate":"g"}}`)
		large := `{"execute":"echo","id":"` + strings.Repeat("a", commandBytesMax-1000) + `"}`
		sent := 0
		for ; sent < queueLenMax; sent++ {
			m.conn.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := m.conn.Write([]byte(large)); err != nil {
				break
			}
		}
		require.Equal(t, queueWeightMax/commandBytesMax+1, sent)
		close(s.gate("g"))
		m.took()
		m.conn.Close()
	})
}

// Goal: the largest command fits into the queue. Method: the heaviest tree that the bounds allow is weighed.
func TestLargestCommandFits(t *testing.T) {
	elements := commandTokensMax/2 - 1
	text := "[" + strings.TrimSuffix(strings.Repeat(strings.Repeat("1", commandBytesMax/elements-2)+",", elements), ",") + "]"
	var weight int
	s := &stream{emit: func(n node, err error) {
		require.NoError(t, err)
		weight = n.weight()
	}}
	s.feed([]byte(text))
	require.Greater(t, weight, 2*commandBytesMax)
	require.Less(t, weight, queueWeightMax)
}

// Goal: a client that never reads holds up nobody and costs a bounded amount. Method: beside a deaf monitor, which has
// sent thousands of commands, another one sends events and is answered; the memory is that of the bounds.
func TestDeafReader(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		deaf := s.connectDeaf(Monitor{})
		_, err := readLine(deaf)
		require.NoError(t, err)
		deaf.say(`{"execute":"qmp_capabilities"}`)
		_, err = readLine(deaf)
		require.NoError(t, err)
		deaf.say(strings.Repeat(`{"execute":"echo","arguments":{"a":"`+strings.Repeat("x", 4096)+`"}}`, 2000))
		m := s.negotiated()
		before := heapBytes()
		for range 3 {
			answer := m.ask(`{"execute":"emit","arguments":{"name":"X","count":1000,"data":"` + strings.Repeat("y", 1000) + `"}}`)
			require.Equal(t, 1001, strings.Count(answer, "\r\n"))
		}
		require.Less(t, heapBytes()-before, int64(4*(outputBytesMax+eventBytesMax)))
		lost := uint64(0)
		s.server.mu.Lock()
		for c := range s.server.connections {
			lost += c.LostEvents()
		}
		s.server.mu.Unlock()
		require.Greater(t, lost, uint64(1500))
		m.conn.Close()
		deaf.conn.Close()
		<-deaf.done
	})
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func readLine(m *monitor) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for {
		if _, err := m.conn.Read(one); err != nil {
			return string(line), err
		}
		line = append(line, one[0])
		if one[0] == '\n' {
			return string(line), nil
		}
	}
}

// Goal: a client learns how many events it has missed, where they are missing. Method: too many for one that begins to read
// later.
func TestLostEventsAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		m := s.connectDeaf(Monitor{})
		readLine(m)
		m.say(`{"execute":"qmp_capabilities"}`)
		readLine(m)
		synctest.Wait()
		const extra = 100
		for n := range eventsWaitingMax + extra {
			s.server.Broadcast("E", n)
			synctest.Wait()
		}
		go m.collect()
		lines := strings.Split(strings.TrimSuffix(m.took(), "\r\n"), "\r\n")
		require.Contains(t, lines[0], `"event": "E", "data": 0`) // the writer had it in its hand
		require.Contains(t, lines[1], fmt.Sprintf(`"event": "X_EVENTS_LOST", "data": {"count": %d}`, extra-1))
		require.Contains(t, lines[2], fmt.Sprintf(`"event": "E", "data": %d`, extra))
		require.Len(t, lines, eventsWaitingMax+2)
		m.conn.Close()
	})
}

// Goal: there are only so many monitors, who comes too late is told, and those who hold a place without a word lose it.
// Method: all places are taken, by negotiated monitors and by one that is silent.
func TestConnectionsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, s *stage) {
		silent := s.connect(Monitor{})
		var all []*monitor
		for len(all) < connectionsMax-1 {
			all = append(all, s.negotiated())
		}
		silent.took()
		refused := "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Too many monitors are connected, the limit is 32\"}}\r\n(end)\r\n"
		require.Equal(t, refused, s.connect(Monitor{}).took())
		require.Empty(t, silent.took())
		later := time.NewTimer(silentMax + time.Second)
		<-later.C
		require.Equal(t, refused, s.connect(Monitor{}).took())
		require.Equal(t, "(end)\r\n", silent.took())
		require.Contains(t, s.negotiated().ask(echo), "return")
		require.Equal(t, connectionsMax, s.server.Connections())
	})
}
