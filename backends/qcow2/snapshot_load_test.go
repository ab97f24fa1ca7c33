package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

const (
	loadWriters = 8
	loadBlocks  = 64 // of each writer
	loadBytes   = 4096
)

// load writes to two disks, without end: each block gets a number on the first, and then the same on the second.
type load struct {
	// Immutable.
	disks [2]*rig

	// Owned by the context.
	numbers [2][loadWriters * loadBlocks]uint64 // that were acknowledged
	stop    bool
	left    int
	err     error
	ended   blockcore.WaitQueue
}

// write is one writer.
func (l *load) write(t *blockcore.Task, writer int) {
	defer func() {
		if l.left--; l.left == 0 {
			l.ended.WakeAll()
		}
	}()
	p := t.Buffers().Get(loadBytes)
	defer t.Buffers().Put(p)
	for number := uint64(1); !l.stop && l.err == nil; number++ {
		block := writer*loadBlocks + int(number*7%loadBlocks)
		for k := 0; k < loadBytes; k += 8 {
			binary.BigEndian.PutUint64(p[k:], number)
		}
		for d, disk := range l.disks {
			var k blockcore.Ticket
			disk.root.Begin(t, &k)
			err := disk.root.Edge().Write(t, p, int64(block)*loadBytes, 0)
			if err == nil {
				l.numbers[d][block] = number
			} else {
				l.err = err
			}
			disk.root.End(t, &k)
		}
		t.Yield()
	}
}

// Goal: a snapshot of two disks that are being written is what had been acknowledged at one instant, on both, and nothing else, and the images have no errors
// then. Method: writers that never rest put numbers into both, on the first before the second; snapshots are created and deleted meanwhile; what qemu-img finds in
// them is compared with the numbers at that moment.
func TestSnapshotsUnderLoad(t *testing.T) {
	dir := scratch(t)
	l := &load{left: loadWriters}
	r := newRig(t)
	var paths [2]string
	for d := range l.disks {
		paths[d] = create(t, filepath.Join(dir, fmt.Sprintf("disk%d", d)), "8M", "cluster_size=8k")
		one := &rig{t: t, ctx: r.ctx, graph: r.graph, nodes: 100 * d}
		l.disks[d] = one.use(one.add(paths[d], Options{Unmap: true}))
	}
	for writer := range loadWriters {
		r.ctx.Post(func() {
			r.ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) { l.write(t, writer) }))
		})
	}
	kept := map[string][2][loadWriters * loadBlocks]uint64{}
	nodes := []*blockcore.Node{l.disks[0].root.Node(), l.disks[1].root.Node()}
	for round := range 12 {
		name := fmt.Sprintf("s%d", round)
		d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "snapshot", Nodes: nodes, FlushAhead: true})
		require.NoError(t, err)
		require.NoError(t, r.graph.Update(context.Background(), "snapshot", func(tx *blockcore.Tx) error {
			require.NoError(t, r.ctx.Do(func(*blockcore.Task) error { kept[name] = l.numbers; return nil }))
			for _, n := range nodes {
				if err := tx.CreateSnapshot(d, n, blockcore.NewSnapshot{Name: name, Taken: time.Now(), Undone: func(err error) { t.Error(err) }}); err != nil {
					return err
				}
			}
			return nil
		}))
		d.End()
		if gone := fmt.Sprintf("s%d", round-2); round%3 == 2 {
			require.NoError(t, l.disks[0].deleteSnapshot(gone))
			require.NoError(t, l.disks[1].deleteSnapshot(gone))
			delete(kept, gone)
		}
	}
	require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error {
		l.stop = true
		for l.left > 0 {
			t.Wait(&l.ended)
		}
		return l.err
	}))
	l.disks[0].root.Close()
	l.disks[1].root.Close()
	l.disks[1].root = nil
	l.disks[0].close()
	for name, numbers := range kept {
		for d, path := range paths {
			got := flat(t, path, "-f", "qcow2", "-l", "snapshot.name="+name)
			want := make([]byte, len(got))
			for block, number := range numbers[d] {
				for k := 0; k < loadBytes; k += 8 {
					binary.BigEndian.PutUint64(want[block*loadBytes+k:], number)
				}
			}
			requireSame(t, want, got, name)
		}
		for block, first := range numbers[0] {
			require.LessOrEqual(t, numbers[1][block], first, "the second disk is ahead of the first, in block %d of %s", block, name)
		}
	}
	require.NotEqual(t, kept["s1"], kept["s11"], "nothing was written")
	for _, path := range paths {
		checkImage(t, path)
		require.Equal(t, len(kept), strings.Count(tool(t, "qemu-img", "snapshot", "-l", path), " s"))
	}
}

// Goal: a disk with snapshots becomes larger and smaller, and read-only and writable again, as without, and the snapshots stay what they are. Method: resizes and
// reopens between snapshots; qemu-img looks at all of them.
func TestResizeAndReopenWithSnapshots(t *testing.T) {
	path := create(t, filepath.Join(scratch(t), "image"), "1M", "cluster_size=4k")
	r := open(t, path, Options{Unmap: true})
	resize := func(size int64) {
		require.NoError(t, r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error { return tx.Resize(d, n, size) }))
	}
	reopen := func(readOnly bool) {
		require.NoError(t, r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
			return tx.Reopen(d, n, Options{Unmap: true, ReadOnly: readOnly})
		}))
	}
	want := states{}
	fill := func(name string, c byte) {
		r.write(0, []byte(strings.Repeat(string(c), int(r.image.Size()))))
		require.NoError(t, r.createSnapshot(name))
		want[name] = r.contents()
	}
	fill("large", 'a')
	resize(256 << 10)
	fill("small", 'b')
	resize(2 << 20)
	requireSame(t, slices.Concat(want["small"], make([]byte, 2<<20-256<<10)), r.contents(), "grown")
	fill("larger", 'c')
	resize(128 << 10)
	for _, name := range []string{"larger", "small", "large"} {
		require.NoError(t, r.applySnapshot(name))
		requireSame(t, want[name], r.contents(), name)
	}
	r.root.Close()
	var err error
	r.root, err = r.graph.NewRoot(r.graph.Node("image2"), blockcore.RootOptions{Name: "reader"})
	require.NoError(t, err)
	reopen(true)
	require.Error(t, r.createSnapshot("never"))
	requireSame(t, want["large"], r.contents(), "read-only")
	reopen(false)
	require.NoError(t, r.deleteSnapshot("small"))
	require.NoError(t, r.createSnapshot("again"))
	r.close()
	checkImage(t, path)
	for _, name := range []string{"large", "larger"} {
		got := flat(t, path, "-f", "qcow2", "-l", "snapshot.name="+name)
		n := min(len(got), len(want[name])) // qemu-img takes the size of today
		requireSame(t, want[name][:n], got[:n], name)
	}
}
