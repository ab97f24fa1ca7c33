package blockcore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// request is one request of a random sequence.
type request struct {
	op    string
	r     Range
	shift int // of the buffer's address, bytes
	tag   int
	limit int // of extents
}

func drawRequest(t *rapid.T, sizeBytes int64) request {
	q := request{op: rapid.SampledFrom([]string{"read", "write", "zero", "discard", "status"}).Draw(t, "op")}
	// Ends at and near the borders of blocks are what matters.
	edge := func(label string, most int64) int64 {
		at := rapid.Int64Range(0, most/512).Draw(t, label)*512 + rapid.Int64Range(-2, 2).Draw(t, label+" shift")
		return min(max(at, 0), most)
	}
	q.r.Offset = edge("offset", sizeBytes)
	q.r.Length = edge("length", min(sizeBytes-q.r.Offset, 40_000))
	q.shift = rapid.SampledFrom([]int{0, 1, 512}).Draw(t, "address")
	q.tag = rapid.IntRange(0, 255).Draw(t, "tag")
	q.limit = rapid.IntRange(1, 4).Draw(t, "extents")
	return q
}

// perform makes the request and compares with model, which it keeps up to date.
func (q request) perform(t *Task, e *Edge, model []byte) error {
	part := model[q.r.Offset:q.r.End()]
	p := t.Buffers().Get(len(part) + q.shift + 1)
	defer t.Buffers().Put(p)
	data := p[q.shift : q.shift+len(part)]
	switch q.op {
	case "write":
		fill(data, q.tag)
		copy(part, data)
		return e.Write(t, data, q.r.Offset, 0)
	case "zero":
		clear(part)
		return e.WriteZeroes(t, q.r, 0)
	case "discard":
		whole := wholeBlocks(q.r, e.Node().Limits().Align)
		clear(model[whole.Offset:whole.End()])
		return e.Discard(t, q.r, false)
	case "status":
		return q.status(t, e, part)
	}
	if err := e.Read(t, data, q.r.Offset); err != nil {
		return err
	}
	if !bytes.Equal(data, part) {
		return fmt.Errorf("read of %v found something else", q.r)
	}
	return nil
}

// wholeBlocks is what of r is made of whole blocks, from r's beginning on when there is nothing.
func wholeBlocks(r Range, align int64) Range {
	begin := (r.Offset + align - 1) / align * align
	end := r.End() / align * align
	if end <= begin {
		return Range{r.Offset, 0}
	}
	return Range{begin, end - begin}
}

func (q request) status(t *Task, e *Edge, part []byte) error {
	if len(part) == 0 {
		return nil
	}
	exts, err := e.BlockStatus(t, q.r, nil, q.limit)
	if err != nil {
		return err
	}
	if len(exts) == 0 || len(exts) > q.limit || total(exts) > q.r.Length {
		return fmt.Errorf("status of %v is %v", q.r, exts)
	}
	for _, x := range exts {
		if x.Status&ExtentZero != 0 && len(bytes.Trim(part[:x.Length], "\x00")) != 0 {
			return fmt.Errorf("status of %v: data in a hole of %v", q.r, exts)
		}
		part = part[x.Length:]
	}
	return nil
}

func TestEdgeAgainstFlatModel(t *testing.T) {
	// A node of any alignment behaves as an array of bytes, and its driver gets only what it was promised: random sequences of
	// requests of any offset, length and address, on drivers of several limits and abilities, against a slice.
	c := newTestContext(t, ContextOptions{})
	rapid.Check(t, func(t *rapid.T) {
		align := rapid.SampledFrom([]int64{1, 512, 4096, 65536}).Draw(t, "align")
		const sizeBytes = 3 * 65536
		m := newMemory(sizeBytes, Limits{
			Align:       align,
			TransferMax: align * rapid.SampledFrom([]int64{0, 1, 3, 1 << 12}).Draw(t, "transfer max"),
		})
		m.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var d Driver = m
		if rapid.Bool().Draw(t, "plain") {
			d = plain{bare{m}}
		}
		r := attachRapid(t, c, d)
		model := make([]byte, sizeBytes)
		for range rapid.IntRange(1, 30).Draw(t, "requests") {
			q := drawRequest(t, sizeBytes)
			if _, bare := d.(plain); bare && q.op == "discard" {
				continue // it does nothing
			}
			if err := c.Do(func(t *Task) error { return q.perform(t, r.Edge(), model) }); err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			if m.broken != nil {
				t.Fatalf("%+v: the driver was given %v", q, m.broken)
			}
			if !bytes.Equal(model, m.data) {
				t.Fatalf("%+v: the driver holds something else than the model", q)
			}
		}
	})
}

func attachRapid(t *rapid.T, c *AioContext, d Driver) *Root {
	g := NewGraph()
	n, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: d})
	require.NoError(t, err)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Writable: n.Writable()})
	require.NoError(t, err)
	return r
}

func TestNoLostUpdate(t *testing.T) {
	// Requests that share blocks but no byte never undo each other: twenty Tasks, each with a zone whose borders lie inside of
	// blocks, read, write, zero and discard there and compare with a model of their own, on a driver that suspends at random.
	for _, align := range []int64{1, 512, 4096} {
		t.Run(fmt.Sprint(align), func(t *testing.T) {
			onEngines(t, func(t *testing.T, c *AioContext) {
				const tasks = 20
				rng := newRand(t)
				m := newMemory(align*(tasks/2)+16*512, Limits{Align: align, TransferMax: 8 * align})
				m.data = make([]byte, (m.Size()+align-1)/align*align)
				m.rng = rng
				r := attach(t, c, m)
				model := make([]byte, m.Size())
				zone := m.Size()/tasks - 1
				errs := make(chan error, tasks)
				onLoop(t, c, func() {
					for i := range int64(tasks) {
						c.Spawn(BodyFunc(func(t *Task) {
							errs <- inZone(t, r.Edge(), model, Range{i*zone + i%3, zone - 3}, rng)
						}))
					}
				})
				for range tasks {
					require.NoError(t, <-errs)
				}
				require.Equal(t, model, m.data)
				require.NoError(t, m.broken)
				require.Zero(t, r.Node().InFlight())
			})
		})
	}
}

// inZone makes random requests inside of zone.
func inZone(t *Task, e *Edge, model []byte, zone Range, rng *rand.Rand) error {
	for step := range 400 {
		off := rng.Int64N(zone.Length)
		q := request{
			op:    []string{"read", "write", "zero", "discard"}[rng.IntN(4)],
			r:     Range{zone.Offset + off, rng.Int64N(zone.Length - off + 1)},
			shift: rng.IntN(2),
			tag:   step,
		}
		if err := q.perform(t, e, model); err != nil {
			return fmt.Errorf("step %d, %+v: %w", step, q, err)
		}
	}
	return nil
}

// overlap is one write, read or zeroing of TestOverlappingRequests, with the moments of its begin and end.
type overlap struct {
	r          Range
	value      byte
	begin, end int
}

// history is what happened, in the logical time of a counter.
type history struct {
	now    int
	writes []*overlap
	errs   []error
}

func (h *history) tick() int { h.now++; return h.now }

// mayBe reports whether a byte read between begin and end may have the value that w gave it: w began before that, and no other
// write of the byte lies wholly between w and the read.
func (h *history) mayBe(w *overlap, at int64, begin, end int) bool {
	if w.begin > end {
		return false
	}
	for _, v := range h.writes {
		covers := v.r.Offset <= at && at < v.r.End()
		if covers && v.end != 0 && v.end < begin && (w.end != 0 && v.begin > w.end) {
			return false
		}
	}
	return true
}

// check compares p, read at off between begin and end, with the writes; no two of them have one value.
func (h *history) check(p []byte, off int64, begin, end int) error {
	for i, value := range p {
		at := off + int64(i)
		ok := false
		for _, w := range h.writes {
			if w.value == value && w.r.Offset <= at && at < w.r.End() {
				ok = ok || h.mayBe(w, at, begin, end)
			}
		}
		if !ok {
			return fmt.Errorf("byte %d is %d, which no write between %d and %d explains", at, value, begin, end)
		}
	}
	return nil
}

func TestOverlappingRequests(t *testing.T) {
	// Each byte behaves as a register when requests overlap in place and time: Tasks write values of their own at random places of
	// a few blocks and read others; each byte read must come from a write that had begun and had not been followed by a
	// finished one. In the end each run of a block that the same writes cover holds the value of one of them.
	for _, align := range []int64{512, 4096} {
		t.Run(fmt.Sprint(align), func(t *testing.T) {
			onEngines(t, func(t *testing.T, c *AioContext) {
				rng := newRand(t)
				for range 20 {
					overlapOnce(t, c, align, rng)
				}
			})
		})
	}
}

func overlapOnce(t *testing.T, c *AioContext, align int64, rng *rand.Rand) {
	m := newMemory(4*align, Limits{Align: align})
	m.rng = rng
	r := attach(t, c, m)
	h := &history{}
	h.writes = append(h.writes, &overlap{r: Range{0, m.Size()}, end: h.tick()}) // the zeroes at the beginning
	const tasks, requests = 8, 6
	done := make(chan struct{}, tasks)
	onLoop(t, c, func() {
		for i := range tasks {
			c.Spawn(BodyFunc(func(t *Task) {
				for k := range requests {
					h.request(t, r.Edge(), rng, byte(1+i*requests+k))
				}
				done <- struct{}{}
			}))
		}
	})
	for range tasks {
		<-done
	}
	require.Empty(t, h.errs)
	require.NoError(t, m.broken)
	require.NoError(t, h.check(m.data, 0, h.now, h.tick()))
	requireWholeWrites(t, h, m.data, align)
}

// request makes one random request that overlaps with others.
func (h *history) request(t *Task, e *Edge, rng *rand.Rand, value byte) {
	size := e.Node().Size()
	r := Range{Offset: rng.Int64N(size)}
	r.Length = 1 + rng.Int64N(size-r.Offset)
	if rng.IntN(3) == 0 {
		r = r.Widen(e.Node().Limits().Align)
	}
	p := t.Buffers().Get(int(r.Length))
	defer t.Buffers().Put(p)
	begin := h.tick()
	var err error
	if rng.IntN(3) == 0 {
		if err = e.Read(t, p, r.Offset); err == nil {
			err = h.check(p, r.Offset, begin, h.tick())
		}
	} else {
		for i := range p {
			p[i] = value
		}
		w := &overlap{r: r, value: value, begin: begin}
		h.writes = append(h.writes, w)
		err = e.Write(t, p, r.Offset, 0)
		w.end = h.tick()
	}
	if err != nil {
		h.errs = append(h.errs, err)
	}
}

// requireWholeWrites looks at runs of bytes inside of a block that the same writes cover: they have one value.
func requireWholeWrites(t *testing.T, h *history, data []byte, align int64) {
	t.Helper()
	covers := func(at int64) string {
		var set []byte
		for _, w := range h.writes {
			if w.r.Offset <= at && at < w.r.End() {
				set = append(set, w.value)
			}
		}
		return string(set)
	}
	last := map[string]byte{}
	for at, value := range data {
		if int64(at)%align == 0 {
			clear(last)
		}
		set := covers(int64(at))
		before, known := last[set]
		require.True(t, !known || before == value, "a block has bytes of two writes at %d", at)
		last[set] = value
	}
}
