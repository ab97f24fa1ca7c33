package repair_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/backends/qcow2/repair"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: the goroutine of a repair ends with it; method: look for it when all tests are over.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tool runs one of QEMU's tools.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %q: %s", name, args, out)
}

// dirty makes an image that was written with lazy refcounts, and not closed.
func dirty(t *testing.T) string { return dirtyWith(t, "lazy_refcounts=on") }

func dirtyWith(t *testing.T, options string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "16M")
	script := "exec qemu-io -f qcow2 -c 'write -q -P 5 0 1M' -c 'write -q -P 6 4M 1M' -c flush -c 'sigraise 9' " + path
	require.Error(t, exec.Command("sh", "-c", script).Run())
	require.NotZero(t, incompatible(t, path)&1, "the image should be dirty")
	return path
}

// incompatible are the bits of that name in the header.
func incompatible(t *testing.T, path string) uint64 {
	t.Helper()
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	return binary.BigEndian.Uint64(p[72:])
}

// told is what a repair has told.
type told struct {
	lines         []string
	errors, leaks int64
	repaired      bool
}

func (s *told) listener() repair.Listener {
	return repair.Listener{
		Found:    func(line string) { s.lines = append(s.lines, line) },
		Repaired: func(errors, leaks int64) { s.errors, s.leaks, s.repaired = errors, leaks, true },
	}
}

// openWith opens an image on a loop, reads a byte of it, and closes it.
func openWith(t *testing.T, ctx *blockcore.AioContext, path string, o qcow2.Options, at int64) (b byte, err error) {
	t.Helper()
	g := blockcore.NewGraph()
	f, err := raw.Open(raw.Options{Path: path, ReadOnly: o.ReadOnly})
	require.NoError(t, err)
	file, err := g.AddNode(blockcore.NodeOptions{Name: "file", Context: ctx, Driver: f})
	require.NoError(t, err)
	defer func() { require.NoError(t, g.RemoveNodes()) }()
	perm := blockcore.PermRead
	if !o.ReadOnly {
		perm |= blockcore.PermResize
	}
	root, err := g.NewRoot(file, blockcore.RootOptions{Name: "open", Writable: !o.ReadOnly, Permissions: perm})
	require.NoError(t, err)
	defer root.Close()
	err = ctx.Do(func(task *blockcore.Task) error {
		i, err := qcow2.Open(task, root.Edge(), o)
		if err != nil {
			return err
		}
		p := task.Buffers().Get(512)
		defer task.Buffers().Put(p)
		err = i.ReadAt(task, p, at)
		b = p[0]
		if closed := i.Close(task); err == nil {
			err = closed
		}
		return err
	})
	return b, err
}

// Goal: an image that was not closed is whole after it was opened for writing, on either engine, with one worker too, for which the repair must not
// wait. Method: QEMU is killed; qemu-img checks what we have repaired.
func TestImagesThatWereNotClosed(t *testing.T) {
	for _, engine := range []blockcore.EngineKind{blockcore.EngineAuto, blockcore.EngineThreads} {
		t.Run(fmt.Sprint(engine), func(t *testing.T) {
			ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "loop", Engine: engine, Workers: 1})
			require.NoError(t, err)
			defer ctx.Close()
			path := dirty(t)
			var s told
			b, err := openWith(t, ctx, path, qcow2.Options{Repair: repair.Func(s.listener())}, 4<<20)
			require.NoError(t, err)
			require.EqualValues(t, 6, b)
			require.True(t, s.repaired)
			require.Positive(t, s.errors)
			require.LessOrEqual(t, len(s.lines), 21, "what is told is bounded")
			require.Contains(t, strings.Join(s.lines, "\n"), "cluster 5 refcount=0 reference=1")
			require.Zero(t, incompatible(t, path))
			tool(t, "qemu-img", "check", "-q", path)
			tool(t, "qemu-io", "-f", "qcow2", "-c", "read -q -P 5 0 1M", "-c", "read -q -P 6 4M 1M", path)
		})
	}
}

// Goal: to read such an image it is not changed. Method: its bytes before and after.
func TestReadersRepairNothing(t *testing.T) {
	path := dirty(t)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	var s told
	b, err := openWith(t, blocktest.NewContext(t, blockcore.EngineAuto), path, qcow2.Options{ReadOnly: true, Repair: repair.Func(s.listener())}, 0)
	require.NoError(t, err)
	require.EqualValues(t, 5, b)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.False(t, s.repaired)
}

// Goal: what cannot be repaired is not opened for writing, and costs neither time nor memory. Method: an L1 entry that leads nowhere; a file that
// says it is as long as a file can be.
func TestImagesBeyondRepair(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	t.Run("an L1 entry", func(t *testing.T) {
		path := dirty(t)
		p, err := os.ReadFile(path)
		require.NoError(t, err)
		l1 := binary.BigEndian.Uint64(p[40:])
		binary.BigEndian.PutUint64(p[l1:], binary.BigEndian.Uint64(p[l1:])|0x200)
		require.NoError(t, os.WriteFile(path, p, 0o600))
		var s told
		_, err = openWith(t, ctx, path, qcow2.Options{Repair: repair.Func(s.listener())}, 0)
		require.ErrorContains(t, err, "Could not repair dirty image: 1 errors are left that cannot be repaired")
		require.False(t, s.repaired)
		require.NotZero(t, incompatible(t, path)&1)
	})
	t.Run("a length", func(t *testing.T) {
		path := dirty(t)
		dir, err := os.MkdirTemp("/dev/shm", "repair-test") // which takes any length
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		p, err := os.ReadFile(path)
		require.NoError(t, err)
		path = filepath.Join(dir, "disk.qcow2")
		require.NoError(t, os.WriteFile(path, p, 0o600))
		require.NoError(t, os.Truncate(path, 1<<56))
		var s told
		_, err = openWith(t, ctx, path, qcow2.Options{Repair: repair.Func(s.listener())}, 0)
		require.ErrorContains(t, err, "Could not repair dirty image: the file has more than")
	})
}

// Goal: a repair that cannot write fails, and the image stays dirty. Method: an edge without the right to.
func TestRepairWithoutRights(t *testing.T) {
	path := dirty(t)
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	g := blockcore.NewGraph()
	f, err := raw.Open(raw.Options{Path: path, ReadOnly: true})
	require.NoError(t, err)
	file, err := g.AddNode(blockcore.NodeOptions{Name: "file", Context: ctx, Driver: f})
	require.NoError(t, err)
	defer func() { require.NoError(t, g.RemoveNodes()) }()
	root, err := g.NewRoot(file, blockcore.RootOptions{Name: "open", Permissions: blockcore.PermRead})
	require.NoError(t, err)
	defer root.Close()
	var s told
	err = ctx.Do(func(task *blockcore.Task) error { return repair.Func(s.listener())(task, root.Edge()) })
	require.Error(t, err)
	require.NotZero(t, incompatible(t, path)&1)
}
