package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// randomCommands have %n for a node, %e for an export, %o for an object.
var randomCommands = []struct{ name, arguments string }{
	{"blockdev-add", `{"driver":"null-co","node-name":"%n","size":65536}`},
	{"blockdev-add", `{"driver":"pass","node-name":"%n","file":"%n"}`},
	{"blockdev-add", `{"driver":"pass","node-name":"%n","file":{"driver":"null-co","node-name":"%n","size":65536}}`},
	{"blockdev-add", `{"driver":"pass","node-name":"%n","file":{"driver":"pass","file":{"driver":"null-co","bogus":1}}}`},
	{"blockdev-del", `{"node-name":"%n"}`},
	{"blockdev-reopen", `{"options":[{"driver":"pass","node-name":"%n","file":"%n"},{"driver":"null-co","node-name":"%n","size":65536,"read-only":true}]}`},
	{"blockdev-reopen", `{"options":[{"driver":"pass","node-name":"%n","file":"%n"}]}`},
	{"block_resize", `{"node-name":"%n","size":65536}`},
	{"blockdev-snapshot", `{"node":"%n","overlay":"%n"}`},
	{"transaction", `{"actions":[{"type":"blockdev-snapshot","data":{"node":"%n","overlay":"%n"}},{"type":"abort","data":{}}]}`},
	{"x-blockdev-set-iothread", `{"node-name":"%n","iothread":"%o","force":true}`},
	{"x-blockdev-set-iothread", `{"node-name":"%n","iothread":null,"force":true}`},
	{"x-blockdev-insert", `{"node-name":"%n","above":"%n"}`},
	{"x-blockdev-remove", `{"node-name":"%n"}`},
	{"x-blockdev-replace", `{"node-name":"%n","with":"%n"}`},
	{"object-add", `{"qom-type":"iothread","id":"%o"}`},
	{"object-add", `{"qom-type":"throttle-group","id":"%o","limits":{"iops-total":100000}}`},
	{"object-add", `{"qom-type":"authz-simple","id":"%o","identity":"me"}`},
	{"object-del", `{"id":"%o"}`},
	{"qom-get", `{"path":"%o","property":"limits"}`},
	{"qom-set", `{"path":"/objects/%o","property":"limits","value":{"bps-total":1000000}}`},
	{"qom-list", `{"path":"/objects/%o"}`},
	{"nbd-server-start", `{"addr":{"type":"unix","data":{"path":"s"}},"max-connections":5}`},
	{"nbd-server-start", `{"addr":{"type":"unix","data":{"path":"s"}},"tls-authz":"%o"}`},
	{"nbd-server-stop", ``},
	{"nbd-server-add", `{"device":"%n","writable":true}`},
	{"nbd-server-remove", `{"name":"%n","mode":"hard"}`},
	{"block-export-add", `{"type":"nbd","id":"%e","node-name":"%n","writable":true}`},
	{"block-export-add", `{"type":"nbd","id":"%e","node-name":"%n","name":"x","iothread":"%o","x-throttle-group":"%o"}`},
	{"block-export-add", `{"type":"nbd","id":"%e","node-name":"%n","name":"%e","iothread":"%o","fixed-iothread":true}`},
	{"block-export-del", `{"id":"%e"}`},
	{"block-export-del", `{"id":"%e","mode":"hard"}`},
	{"x-export-set-throttle", `{"id":"%e","group":"%o"}`},
	{"x-export-set-throttle", `{"id":"%e","group":null}`},
	{"x-drain-begin", `{"exports":["%e","%e"],"lease":1}`},
	{"x-drain-begin", `{"nodes":["%n"],"lease":1}`},
	{"x-drain-end", `{"id":"drain1"}`},
	{"x-drain-renew", `{"id":"drain1","lease":1}`},
	{"x-client-disconnect", `{"id":1}`},
	{"x-query-drains", ``}, {"x-query-clients", ``}, {"x-query-inflight", ``}, {"query-block-exports", ``}, {"query-iothreads", ``},
	{"query-named-block-nodes", ``}, {"query-blockstats", `{"query-nodes":true}`}, {"x-debug-query-block-graph", ``}, {"qom-list", `{"path":"/objects"}`},
}

// randomCommand makes a command; pick chooses a number below n.
func randomCommand(pick func(n int) int) (name, arguments string) {
	c := randomCommands[pick(len(randomCommands))]
	var b []byte
	for n := 0; n < len(c.arguments); n++ {
		if c.arguments[n] == '%' {
			n++
			b = fmt.Appendf(b, "%c%d", c.arguments[n], pick(3))
			continue
		}
		b = append(b, c.arguments[n])
	}
	return c.name, string(b)
}

// run executes commands until the context ends or there are no more. Errors are answers, but for those of the connection.
func (o *operator) run(ctx context.Context, count int, pick func(n int) int) {
	for range count {
		name, arguments := randomCommand(pick)
		var args any
		if arguments != "" {
			args = json.RawMessage(arguments)
		}
		err := o.Do(ctx, name, args, nil)
		if _, answered := errors.AsType[*qmp.Error](err); err != nil && !answered {
			return
		}
	}
}

// Goal: several monitors may do the same things at once. Method: four of them do what a seed says, beside clients that come, read and go;
// in the end the plane takes all of it down and remembers nothing.
func TestMonitorsAtOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	defer func() { t.Logf("seed %d", seed) }()
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var monitors, clients sync.WaitGroup
	for n := range uint64(4) {
		o, random := h.monitor(), rand.New(rand.NewPCG(seed, n))
		monitors.Go(func() { o.run(ctx, 600, random.IntN) })
	}
	stop := make(chan struct{})
	for range 2 {
		clients.Go(func() { h.visitLoop(stop) })
	}
	monitors.Wait()
	close(stop)
	clients.Wait()
}

// visitLoop connects, asks what there is, reads, and goes, over and over.
func (h *house) visitLoop(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			h.visit()
		}
	}
}

func (h *house) visit() {
	conn, err := net.DialTimeout("unix", filepath.Join(h.dir, "s"), time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(2*time.Second)) != nil {
		return
	}
	c, err := nbd.NewClient(conn)
	if err != nil {
		return
	}
	if exports, err := c.List(); err != nil || len(exports) == 0 {
		return
	}
	if _, err := c.Go("x"); err == nil {
		_, _ = conn.Write(make([]byte, 28)) // no request: the server hangs up
		_, _ = conn.Read(make([]byte, 1))
	}
}

// Goal: CVE-2024-7409: a server that stops while clients are connecting neither dies nor hangs. Method: it starts and stops a hundred times
// beside clients that list its exports.
func TestServerStopsUnderClients(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	o.must("blockdev-add", `{"driver":"null-co","node-name":"n"}`)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() { h.visitLoop(stop) })
	}
	for range 100 {
		o.must("nbd-server-start", `{"addr":{"type":"unix","data":{"path":"s"}}}`)
		o.must("block-export-add", `{"type":"nbd","id":"e","node-name":"n","name":"x"}`)
		o.must("nbd-server-stop", "")
	}
	close(stop)
	clients.Wait()
}

// Goal: the end may come at any moment. Method: the plane is closed while three monitors do what a seed says.
func TestCloseUnderMonitors(t *testing.T) {
	for round := range uint64(10) {
		h := newHouse(t)
		var monitors sync.WaitGroup
		for n := range uint64(3) {
			o, random := h.monitor(), rand.New(rand.NewPCG(round, n))
			monitors.Go(func() { o.run(t.Context(), 1_000_000, random.IntN) })
		}
		for range 40 * round {
			h.graph.Nodes()
		}
		require.NoError(t, h.plane.Close())
		monitors.Wait()
		h.empty()
	}
}

// Goal: a monitor that does not read holds nobody up. Method: one asks for much and reads nothing while another works.
func TestMonitorThatDoesNotRead(t *testing.T) {
	h := newHouse(t)
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.plane.Monitor().ServeConn(theirs, qmp.Monitor{})
	}()
	_, err := ours.Write([]byte(`{"execute":"qmp_capabilities"}`))
	require.NoError(t, err)
	require.NoError(t, ours.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	for err == nil {
		_, err = ours.Write([]byte(`{"execute":"query-commands"}`))
	}
	o := h.monitor()
	for range 500 {
		o.must("blockdev-add", `{"driver":"null-co","node-name":"n"}`)
		o.must("blockdev-del", `{"node-name":"n"}`)
	}
	require.NoError(t, ours.Close())
	<-done
}

// FuzzPlane sends commands that the input chooses. Nothing panics, nothing is left.
func FuzzPlane(f *testing.F) {
	f.Add([]byte{0, 0, 22, 27, 0, 0, 34, 0, 0, 11, 0, 4, 0, 30, 0, 24})
	f.Add([]byte{15, 0, 0, 1, 22, 28, 0, 1, 0, 0, 16, 1, 32, 0, 1, 18, 0, 18, 1, 2, 0, 12, 1, 0})
	f.Fuzz(func(t *testing.T, input []byte) {
		h := newHouse(t)
		o := h.monitor()
		o.run(t.Context(), min(len(input), 60), func(n int) int {
			if len(input) == 0 {
				return 0
			}
			first := int(input[0])
			input = input[1:]
			return first % n
		})
	})
}
