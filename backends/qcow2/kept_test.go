package qcow2

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
)

// What marks the writes that tarry.
const (
	keptSlow = 0x11 // arrives late
	keptMute = 0x22 // is answered late
)

// tarrying is a file that has writes wait. Owned by the context.
type tarrying struct {
	*raw.File
	slow, mute, reads blockcore.WaitQueue
	arrived           int // those of keptMute
	open              bool
	holdReads         bool
}

// ReadAt implements blockcore.Driver.
func (f *tarrying) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	if f.holdReads {
		t.Wait(&f.reads)
	}
	return f.File.ReadAt(t, p, off)
}

// WriteAt implements blockcore.Writer.
func (f *tarrying) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	mark := p[0]
	if mark == keptSlow {
		t.Wait(&f.slow)
	}
	err := f.File.WriteAt(t, p, off, flags)
	if mark == keptMute {
		f.arrived++
		if !f.open {
			t.Wait(&f.mute)
		}
	}
	return err
}

// Goal: what was read as zeroes stays so, though an older write to that place arrives late. Method: a write in place tarries in the file; zeroes, or a discard, are answered meanwhile; a
// write to another part of the cluster, which fills all of it, is answered late, so that the old one ends amid it.
func TestLateWriteToAKeptPlace(t *testing.T) {
	for name, c := range map[string]struct {
		options string
		discard bool
	}{
		"cluster":             {options: "cluster_size=64k"},
		"subcluster":          {options: "cluster_size=128k,extended_l2=on"},
		"data file":           {options: "data_file=data"},
		"data file, discards": {options: "data_file=data", discard: true},
	} {
		t.Run(name, func(t *testing.T) { testLateWrite(t, c.options, c.discard) })
	}
}

// tarry opens an image whose data is in a file that tarries.
func tarry(t *testing.T, options string, discard bool) (*rig, *tarrying) {
	dir := scratch(t)
	t.Chdir(dir)
	path := create(t, filepath.Join(dir, "image"), "1M", options)
	at := path
	_, err := os.Stat("data")
	external := err == nil
	if external {
		at = filepath.Join(dir, "data")
	}
	b, err := raw.Open(raw.Options{Path: at})
	require.NoError(t, err)
	f := &tarrying{File: b}
	r := newRig(t)
	n, err := r.graph.AddNode(blockcore.NodeOptions{Name: "tarrying", Context: r.ctx, Driver: f})
	require.NoError(t, err)
	file, more := n, []blockcore.ChildOptions(nil)
	if external {
		file, more = r.file(path, false), []blockcore.ChildOptions{{Role: blockcore.RoleData, Node: n}}
	}
	image, err := put(r.graph, "image", file, Options{Unmap: discard}, more...)
	require.NoError(t, err)
	return r.use(image), f
}

// Goal: a read that gets no answer does not hold up writes elsewhere. Method: it tarries in the file while a cluster is zeroed in place and written to again.
func TestReadHoldsUpNoKeptPlace(t *testing.T) {
	r, f := tarry(t, "cluster_size=64k", false)
	r.write(0, bytes.Repeat([]byte{1}, 256<<10))
	require.NoError(t, r.ctx.Do(func(*blockcore.Task) error { f.holdReads = true; return nil }))
	read := make(chan error, 1)
	go func() {
		read <- r.do(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Read(t, make([]byte, 512), 128<<10) })
	}()
	require.Eventually(t, func() (waits bool) {
		require.NoError(t, r.ctx.Do(func(*blockcore.Task) error { waits = !f.reads.Empty(); return nil }))
		return waits
	}, time.Minute, time.Millisecond)
	require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		return e.WriteZeroes(t, blockcore.Range{Length: 64 << 10}, 0)
	}))
	r.write(0, bytes.Repeat([]byte{2}, 512))
	require.NoError(t, r.ctx.Do(func(*blockcore.Task) error { f.holdReads = false; f.reads.WakeAll(); return nil }))
	require.NoError(t, <-read)
}

func testLateWrite(t *testing.T, options string, discard bool) {
	r, f := tarry(t, options, discard)
	const part, all = 4096, 128 << 10
	r.write(0, bytes.Repeat([]byte{1}, all))
	write := func(mark byte, length int) chan error {
		done := make(chan error, 1)
		go func() {
			done <- r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
				return e.Write(t, bytes.Repeat([]byte{mark}, length), 0, 0)
			})
		}()
		return done
	}
	await := func(what string, is func() bool) {
		t.Helper()
		require.Eventually(t, func() (so bool) {
			require.NoError(t, r.ctx.Do(func(*blockcore.Task) error { so = is(); return nil }))
			return so
		}, time.Minute, time.Millisecond, what)
	}
	goOn := func(q *blockcore.WaitQueue) {
		t.Helper()
		require.NoError(t, r.ctx.Do(func(*blockcore.Task) error { f.open = q == &f.mute; q.WakeAll(); return nil }))
	}

	late := write(keptSlow, all)
	await("the first write is on its way", func() bool { return !f.slow.Empty() })
	require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		if discard {
			return e.Discard(t, blockcore.Range{Length: all}, false)
		}
		return e.WriteZeroes(t, blockcore.Range{Length: all}, 0)
	}))
	next := write(keptMute, 512)
	await("the next write has arrived, or waits", func() bool { return f.arrived > 0 || !r.image.writing.over.Empty() })
	goOn(&f.slow)
	require.NoError(t, <-late)
	rest := r.read(part, all-part)
	requireSame(t, make([]byte, all-part), rest, "what was zeroed")
	goOn(&f.mute)
	require.NoError(t, <-next)
	requireSame(t, rest, r.read(part, all-part), "what was read")
	requireSame(t, bytes.Repeat([]byte{keptMute}, 512), r.read(0, 512), "what was written")
}
