package interop_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
	"nbd-dataplane/interop/verifier"
)

// churnEnv makes the churn longer: a percentage of the full one. make churn sets 100.
const (
	churnEnv     = "CHURN_PERCENT"
	churnDefault = 25
)

// monitor is a QMP client that goes by the letters.
type monitor struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialMonitor(t *testing.T, path string) *monitor {
	t.Helper()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	m := &monitor{t: t, conn: conn, in: bufio.NewReader(conn)}
	_, err = m.in.ReadBytes('\n')
	require.NoError(t, err)
	m.do("qmp_capabilities", nil, nil)
	return m
}

// try runs a command and returns its error, as the monitor words it.
func (m *monitor) try(command string, arguments, result any) error {
	m.t.Helper()
	message := map[string]any{"execute": command}
	if arguments != nil {
		message["arguments"] = arguments
	}
	text, err := json.Marshal(message)
	require.NoError(m.t, err)
	_, err = m.conn.Write(text)
	require.NoError(m.t, err)
	for {
		line, err := m.in.ReadBytes('\n')
		require.NoError(m.t, err)
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
			Event  string
		}
		require.NoError(m.t, json.Unmarshal(line, &answer), "%s", line)
		switch {
		case answer.Event != "":
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error.Desc)
		default:
			if result != nil {
				require.NoError(m.t, json.Unmarshal(answer.Return, result))
			}
			return nil
		}
	}
}

func (m *monitor) do(command string, arguments, result any) {
	m.t.Helper()
	require.NoError(m.t, m.try(command, arguments, result))
}

type args = map[string]any

// churn is what is done to a disk under load, each so many times.
type churn struct {
	m       *monitor
	random  *rand.Rand
	filters int
}

func (c *churn) drain() {
	var lease struct{ ID string }
	c.m.do("x-drain-begin", args{"exports": []string{"disk"}, "lease": 30, "flush": c.random.IntN(8) == 0}, &lease)
	c.m.do("x-drain-end", args{"id": lease.ID}, nil)
}

// move takes the disk to the next event loop.
func (c *churn) move() {
	to := any(fmt.Sprintf("io%d", c.random.IntN(3)))
	c.m.do("x-blockdev-set-iothread", args{"node-name": "disk0", "iothread": to, "force": true}, nil)
}

// filter puts a throttle above the disk and takes it away again.
func (c *churn) filter() {
	name := fmt.Sprintf("filter%d", c.filters)
	c.filters++
	c.m.do("blockdev-add", args{"driver": "throttle", "node-name": name, "throttle-group": "tg", "file": "disk0"}, nil)
	c.m.do("x-blockdev-insert", args{"node-name": name, "above": "disk0"}, nil)
	c.drain()
	c.m.do("x-blockdev-remove", args{"node-name": name}, nil)
	c.m.do("blockdev-del", args{"node-name": name}, nil)
}

// resize makes the disk larger or smaller, and never smaller than what the clients use.
func (c *churn) resize() {
	c.m.do("block_resize", args{"node-name": "disk0", "size": (64 + 4*c.random.IntN(17)) * mib}, nil)
}

// disconnect throws a client out.
func (c *churn) disconnect() {
	var clients []struct{ ID uint64 }
	c.m.do("x-query-clients", nil, &clients)
	if len(clients) > 0 {
		// It may have gone by itself: then nobody is thrown out.
		_ = c.m.try("x-client-disconnect", args{"id": clients[c.random.IntN(len(clients))].ID}, nil)
	}
}

// Goal: whatever happens under a disk, its clients read what they have written and see no error. Method: four clients with 32 requests in
// flight each verify every block, while the disk is drained, moved, filtered, resized and its clients are thrown out, in random order; at
// the end every count is zero.
func TestChurn(t *testing.T) {
	percent := churnDefault
	if text := os.Getenv(churnEnv); text != "" {
		var err error
		percent, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	control := filepath.Join(t.TempDir(), "ctl")
	server := program.Start(t, subject.Options{File: sparse(t, 64*mib), Name: "disk", Args: []string{"-f", "raw", "--control", control, "--shared", "0"}})
	m := dialMonitor(t, control)
	for n := range 3 {
		m.do("object-add", args{"qom-type": "iothread", "id": fmt.Sprintf("io%d", n)}, nil)
	}
	m.do("object-add", args{"qom-type": "throttle-group", "id": "tg", "limits": args{"iops-total": 20000}}, nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &churn{m: m, random: rand.New(rand.NewPCG(seed, 1))}
	clients, ended := startVerifiers(server.Socket, seed, 32*mib/verifier.BlockBytes)
	var work []func()
	for _, kind := range []struct {
		times int
		do    func()
	}{{1000, c.drain}, {200, c.move}, {200, c.filter}, {100, c.resize}, {100, c.disconnect}} {
		for range max(kind.times*percent/100, 2) {
			work = append(work, kind.do)
		}
	}
	c.random.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	for _, do := range work {
		do()
		select {
		case err := <-ended:
			require.NoError(t, err, "a client ended in the middle; seed %d", seed)
		default:
		}
	}
	var done, thrown int64
	for _, v := range clients {
		v.Stop()
	}
	for range clients {
		require.NoError(t, <-ended, "seed %d", seed)
	}
	for _, v := range clients {
		done, thrown = done+v.Done(), thrown+v.Reconnects()
	}
	t.Logf("%d changes under %d requests, %d times a client was thrown out", len(work), done, thrown)
	require.Positive(t, done)
	atRest(t, m)
}

// Goal: a client that was thrown out and comes back reads what stays, also where a request of its last connection is still under way. Method: clients of a few blocks each are
// thrown out again and again, with a limit that has their writes wait in the graph.
func TestChurnOfClients(t *testing.T) {
	control := filepath.Join(t.TempDir(), "ctl")
	server := program.Start(t, subject.Options{File: sparse(t, 64*mib), Name: "disk", Args: []string{"-f", "raw", "--control", control, "--shared", "0"}})
	m := dialMonitor(t, control)
	m.do("object-add", args{"qom-type": "throttle-group", "id": "tg", "limits": args{"iops-write": 5000}}, nil)
	m.do("blockdev-add", args{"driver": "throttle", "node-name": "slow", "throttle-group": "tg", "file": "disk0"}, nil)
	m.do("x-blockdev-insert", args{"node-name": "slow", "above": "disk0"}, nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &churn{m: m, random: rand.New(rand.NewPCG(seed, 1))}
	clients, ended := startVerifiers(server.Socket, seed, 256)
	for n := range 60 {
		done := clients[n%len(clients)].Done()
		require.Eventually(t, func() bool { return clients[n%len(clients)].Done() > done+64 || len(ended) > 0 }, clientMax, time.Millisecond)
		c.disconnect()
	}
	for _, v := range clients {
		v.Stop()
	}
	for range clients {
		require.NoError(t, <-ended, "seed %d", seed)
	}
	atRest(t, m)
}

// startVerifiers starts four clients that share so many blocks.
func startVerifiers(socket string, seed uint64, blocks int64) ([]*verifier.Client, chan error) {
	var all []*verifier.Client
	ended := make(chan error, 4)
	for n := range 4 {
		v := verifier.New(verifier.Options{Socket: socket, Export: "disk", Depth: 32, Index: n, Of: 4, Blocks: blocks, Seed: seed})
		all = append(all, v)
		go func() { ended <- v.Run() }()
	}
	return all, ended
}

// atRest waits until nothing is counted any more: a section is listed until all loops go on, and the disk may still have requests of clients that were thrown out.
func atRest(t *testing.T, m *monitor) {
	t.Helper()
	left := ""
	if !assert.Eventually(t, func() bool { left = m.counted(); return left == "" }, clientMax, 10*time.Millisecond) {
		require.FailNow(t, "something is counted still", left)
	}
}

// counted says what is counted: sections, requests, and nodes that are held still.
func (m *monitor) counted() string {
	m.t.Helper()
	var drains, requests []any
	var graph struct {
		Nodes []struct {
			Name     string
			InFlight int64 `json:"x-in-flight"`
			Quiesced int   `json:"x-quiesced"`
		}
	}
	m.do("x-query-drains", nil, &drains)
	m.do("x-query-inflight", nil, &requests)
	m.do("x-debug-query-block-graph", nil, &graph)
	require.NotEmpty(m.t, graph.Nodes)
	said := fmt.Sprint(drains, requests)
	for _, n := range graph.Nodes {
		if n.InFlight != 0 || n.Quiesced != 0 {
			said += fmt.Sprintf(" %+v", n)
		}
	}
	return strings.TrimPrefix(said, "[] []")
}
