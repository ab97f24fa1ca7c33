package nbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// addExport offers another disk.
func (h *house) addExport(name string) *Export {
	h.t.Helper()
	fake := blocktest.NewFake(blocktest.FakeOptions{Name: name, Log: h.log})
	node, err := h.graph.AddNode(blockcore.NodeOptions{Name: name, Context: h.ctx, Driver: fake})
	require.NoError(h.t, err)
	h.fakes[name] = fake
	e, err := h.server.AddExport(h.graph, ExportOptions{Name: name, Node: node, Writable: true})
	require.NoError(h.t, err)
	h.nodes = append(h.nodes, node)
	return e
}

// loaded runs fn while clients, one of them behind TLS if the house has it, keep requests going; it ends when fn has and
// each of them has seen some rounds. No answer may be an error, and no byte may be wrong.
func (h *house) loaded(fn func()) {
	h.t.Helper()
	const clients, depth, rounds = 4, 8, 3
	stop := make(chan struct{})
	var wg sync.WaitGroup
	failures := make(chan error, clients)
	for i := range uint64(clients) {
		o := dialOptions{style: replyStyle(i % 3)}
		if i == 3 && h.tls != nil {
			o.tls = h.tls
		}
		w := h.dial(o)
		wg.Go(func() {
			if err := w.load(i, depth, rounds, stop); err != nil {
				failures <- fmt.Errorf("client %d: %w", i, err)
			}
		})
	}
	fn()
	close(stop)
	wg.Wait()
	close(failures)
	for err := range failures {
		require.NoError(h.t, err)
	}
}

// load writes and reads an area of its own, depth requests at a time, and compares, until stop and rounds at least.
func (w *wireClient) load(area uint64, depth, rounds int, stop <-chan struct{}) error {
	const block, blocks = 4096, 32
	base := area * block * blocks
	model := make([]byte, block*blocks)
	if _, err := w.succeed(CmdWrite, base, 0, model); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(area, 1))
	for n := 0; ; n++ {
		if n >= rounds {
			select {
			case <-stop:
				return nil
			default:
			}
		}
		var stream bytes.Buffer
		for _, i := range random.Perm(blocks)[:depth] {
			p := fill(byte(n+i), block)
			copy(model[i*block:], p)
			request, _ := w.request(CmdWrite, 0, base+uint64(i)*block, 0, p)
			stream.Write(request)
		}
		if err := w.batch(stream.Bytes()); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		got, err := w.succeed(CmdRead, base, block*blocks, nil)
		if err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		if !bytes.Equal(got, model) {
			return fmt.Errorf("round %d: what is read is not what was written", n)
		}
	}
}

// batch sends requests at once and waits until all of them have succeeded.
func (w *wireClient) batch(requests []byte) error {
	if _, err := w.conn.Write(requests); err != nil {
		return err
	}
	for len(w.pending) > 0 {
		a, err := w.next()
		if err != nil {
			return err
		}
		if a != nil && a.errno != 0 {
			return fmt.Errorf("%v: %v %s", a.header.command, a.errno, a.text)
		}
	}
	return nil
}

// succeed is one request and the data of its answer.
func (w *wireClient) succeed(command Command, offset, length uint64, payload []byte) ([]byte, error) {
	request, _ := w.request(command, 0, offset, length, payload)
	if _, err := w.conn.Write(request); err != nil {
		return nil, err
	}
	for {
		a, err := w.next()
		if err != nil {
			return nil, err
		}
		if a == nil {
			continue
		}
		if a.errno != 0 {
			return nil, fmt.Errorf("%v: %v %s", command, a.errno, a.text)
		}
		return a.data, nil
	}
}
