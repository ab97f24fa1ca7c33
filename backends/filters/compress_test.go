package filters

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// packing is a fake disk that takes compressed writes, and no others: of whole units.
type packing struct {
	*blocktest.Fake
	unit    int64
	refused bool // it cannot compress as things are
}

func (d *packing) CompressedUnit() int64 {
	if d.refused {
		return 0
	}
	return d.unit
}

func (d *packing) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	end := off + int64(len(p))
	if flags&blockcore.WriteCompressed == 0 || off%d.unit != 0 || end%d.unit != 0 && end != d.Size() {
		return fmt.Errorf("a write of %d bytes at %d, flags %x: %w", len(p), off, flags, syscall.EINVAL)
	}
	return d.Fake.WriteAt(t, p, off, flags&^blockcore.WriteCompressed)
}

// WriteZeroes is done with a buffer, whatever its ends.
func (d *packing) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	if flags&blockcore.ZeroNoFallback != 0 {
		return syscall.ENOTSUP
	}
	var w blockcore.WriteFlags
	if flags&blockcore.ZeroFUA != 0 {
		w = blockcore.WriteFUA
	}
	p := t.Buffers().Get(int(r.Length))
	defer t.Buffers().Put(p)
	clear(p)
	return d.Fake.WriteAt(t, p, r.Offset, w)
}

// Goal: a filter that has everything compressed is a correct disk, and writes whole units only, through other filters too; method: the suite over a disk that takes nothing else,
// and ends within a unit.
func TestCompressConforms(t *testing.T) {
	for _, through := range []bool{false, true} {
		t.Run(fmt.Sprintf("through others %v", through), func(t *testing.T) {
			blocktest.TestStack(t, func(*testing.T) blocktest.Subject {
				f := blocktest.NewFake(blocktest.FakeOptions{SizeBytes: 70<<10 + 77})
				return blocktest.Subject{
					Driver: &packing{Fake: f, unit: 4096},
					Reopen: func() blockcore.Driver { return &packing{Fake: f.Reopen(), unit: 4096} },
				}
			}, func(t *testing.T, g *blockcore.Graph, n *blockcore.Node) *blockcore.Node {
				if through {
					n = put(t, g, "throttle", kinds[0].make(t), n)
					n = put(t, g, "copy", NewCopyOnRead(), n)
				}
				return put(t, g, "compress", NewCompress(), n)
			})
		})
	}
}

// Goal: what cannot compress is refused as a child, and what cannot as things are refuses the writes; method: both.
func TestCompressNeedsACompressor(t *testing.T) {
	r := newRigOn(t, NewCopyOnRead(), blocktest.FakeOptions{SizeBytes: 64 << 10})
	_, err := r.graph.AddNode(blockcore.NodeOptions{
		Name: "compress", Driver: NewCompress(), Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: r.disk}},
	})
	require.ErrorContains(t, err, "Compression is not supported for underlying format")

	r.root.Close()
	r.own(put(t, r.graph, "compress", NewCompress(), r.top)) // over copy-on-read, which passes on what its child refuses
	require.ErrorIs(t, <-r.startWrite(0, bytes.Repeat([]byte{1}, 512)), syscall.ENOTSUP)
	require.Equal(t, make([]byte, 512), r.read(0, 512))
	r.requireStill()
}

// Goal: two writes into one unit do not undo each other, nor does one past the filter; method: many at once, each of its own bytes.
func TestCompressMergesWritesIntoOneUnit(t *testing.T) {
	const unit, piece = 4096, 64
	fake := blocktest.NewFake(blocktest.FakeOptions{SizeBytes: 4 * unit})
	r := &rig{t: t, ctx: blocktest.NewContext(t, blockcore.EngineThreads), graph: blockcore.NewGraph(), fake: fake}
	var err error
	r.disk, err = r.graph.AddNode(blockcore.NodeOptions{Name: "disk", Context: r.ctx, Driver: &packing{Fake: fake, unit: unit}})
	require.NoError(t, err)
	r.top = put(t, r.graph, "compress", NewCompress(), r.disk)
	r.own(r.top)
	past := *r
	past.own(r.disk)
	var done []<-chan error
	want := make([]byte, 4*unit)
	for k := 0; k < len(want)/piece; k++ {
		at := int64(k * piece)
		if k%5 == 0 {
			done = append(done, past.start("zero", blockcore.Range{Offset: at, Length: piece}, func(t *blockcore.Task, e *blockcore.Edge) error {
				return e.WriteZeroes(t, blockcore.Range{Offset: at, Length: piece}, 0)
			}))
			continue
		}
		data := bytes.Repeat([]byte{byte(k + 1)}, piece)
		copy(want[at:], data)
		done = append(done, r.startWrite(at, data))
	}
	for _, d := range done {
		require.NoError(t, <-d)
	}
	require.Equal(t, want, r.read(0, 4*unit))
	past.root.Close()
	r.requireStill()
}
