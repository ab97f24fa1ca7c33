//go:build ganesha

package nfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: a file on a real server is a correct disk. Method: the suite on nfs-ganesha, found by its port mapper.
func TestFileConformsOnGanesha(t *testing.T) {
	g := nfstest.StartGanesha(t, t.TempDir())
	count := 0
	blocktest.TestDriver(t, func(t *testing.T) blocktest.Subject {
		count++
		o, _, err := ParseURL(g.StockURL(fmt.Sprintf("disk%d", count)))
		require.NoError(t, err)
		made, err := Create(o, 192<<10+77)
		require.NoError(t, err)
		require.True(t, made)
		open := func() blockcore.Driver {
			f, err := Open(o)
			require.NoError(t, err)
			return f
		}
		return blocktest.Subject{Driver: open(), Reopen: open}
	})
}

// killsMax is how often a server is killed under load in an ordinary run; NFS_KILLS in the environment changes it.
const killsMax = 4

// Goal: a server that is killed and comes back costs no error and no flushed byte, and what was written is read at any time. Method: nfs-ganesha under writes, reads and
// flushes of several Tasks, each in its own part of the file, is killed again and again; at each flush the file is compared on the server's own disk.
func TestGaneshaIsKilled(t *testing.T) {
	kills := killsMax
	if text := os.Getenv("NFS_KILLS"); text != "" {
		_, err := fmt.Sscan(text, &kills)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	g := nfstest.StartGanesha(t, dir)
	const parts, partBytes = 4, 1 << 20
	require.NoError(t, os.WriteFile(g.Path("disk"), make([]byte, parts*partBytes), 0o600))
	r := &rig{t: t, health: make(chan Health, 10000)}
	var err error
	r.ctx, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name()})
	require.NoError(t, err)
	t.Cleanup(r.ctx.Close)
	o, _, err := ParseURL(g.StockURL("disk") + "?connections=2")
	require.NoError(t, err)
	r.file, err = Open(o)
	require.NoError(t, err)
	t.Cleanup(r.close)
	stop := make(chan struct{})
	var ended []chan error
	for part := range parts {
		done := make(chan error, 1)
		ended = append(ended, done)
		go func() { done <- r.work(g.Path("disk"), int64(part*partBytes), partBytes, uint64(part), stop) }()
	}
	for range kills {
		before := r.file.Counters().Commits
		require.Eventually(t, func() bool { return r.file.Counters().Commits >= before+5 }, patienceMax, patienceMax/30000)
		g.Kill()
		g.Restart()
	}
	close(stop)
	for _, done := range ended {
		require.NoError(t, <-done)
	}
	t.Logf("%+v", r.file.Counters())
	require.Positive(t, r.file.Counters().Connects)
}

// work writes, reads and flushes in a part of the disk until stop, and looks at the server's disk after each flush.
func (r *rig) work(path string, base int64, length int, seed uint64, stop chan struct{}) error {
	disk, err := os.Open(path)
	if err != nil {
		return err
	}
	defer disk.Close()
	random := rand.New(rand.NewPCG(seed, 7))
	want := make([]byte, length)
	got := make([]byte, length)
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		for range 8 {
			off := random.IntN(length - 1)
			n := 1 + random.IntN(min(length-off, 100000))
			p := bytes.Repeat([]byte{byte(random.Uint32())}, n)
			copy(want[off:], p)
			if err := <-r.begin(r.writing(base+int64(off), p, 0)); err != nil {
				return err
			}
			if err := <-r.begin(r.reading(base+int64(off), p)); err != nil {
				return err
			}
		}
		if err := <-r.begin(func(t *blockcore.Task) error { return r.file.Flush(t) }); err != nil {
			return err
		}
		if _, err := disk.ReadAt(got, base); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("the server's disk is not what was flushed")
		}
		if err := <-r.begin(r.reading(base, want)); err != nil {
			return err
		}
	}
}

// Goal: QEMU's driver and ours mean the same file by the same URL. Method: each reads what the other has written and flushed, on nfs-ganesha.
func TestSameFileAsQEMU(t *testing.T) {
	g := nfstest.StartGanesha(t, t.TempDir())
	require.NoError(t, os.WriteFile(g.Path("disk"), make([]byte, diskBytes), 0o600))
	r := &rig{t: t, health: make(chan Health, 10), ctx: contextOf(t)}
	o, _, err := ParseURL(g.StockURL("disk"))
	require.NoError(t, err)
	r.file, err = Open(o)
	require.NoError(t, err)
	t.Cleanup(r.close)
	qemuIO := func(commands ...string) {
		args := []string{"-f", "raw"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, err := exec.CommandContext(t.Context(), "qemu-io", append(args, g.StockURL("disk"))...).CombinedOutput()
		require.NoError(t, err, string(out))
		require.NotContains(t, string(out), "failed")
	}
	r.write(1000, bytes.Repeat([]byte{0x5a}, 100000), 0)
	require.NoError(t, r.flush())
	r.write(200000, bytes.Repeat([]byte{0x33}, 4096), blockcore.WriteFUA)
	qemuIO("read -P 0x5a 1000 100000", "read -P 0x33 200000 4096", "read -P 0 150000 1000", "write -P 0x77 50000 70000", "flush")
	r.check(50000, bytes.Repeat([]byte{0x77}, 70000))
	require.NoError(t, r.do(func(t *blockcore.Task) error { return r.file.Resize(t, 2*diskBytes) }))
	qemuIO(fmt.Sprintf("write -P 0x11 %d 4096", 2*diskBytes-4096))
	r.check(2*diskBytes-4096, bytes.Repeat([]byte{0x11}, 4096))
}

// Goal: what a symbolic link says with ".." means at a real server what it means on the server's own disk, also behind a directory that is a link itself, or was mounted by the name of one. Method:
// such links on nfs-ganesha, each read here and by the kernel.
func TestSymbolicLinksOnGanesha(t *testing.T) {
	g := nfstest.StartGanesha(t, t.TempDir())
	for _, dir := range []string{"a/deep", "b"} {
		require.NoError(t, os.MkdirAll(g.Path(dir), 0o755))
	}
	for _, name := range []string{"file", "a/file", "a/deep/file", "b/file"} {
		require.NoError(t, os.WriteFile(g.Path(name), fmt.Appendf(nil, "%-512s", name), 0o644))
	}
	links := map[string]string{
		"dir": "a/deep", "through": "dir/../file", "absolute": g.Path("dir/../file"), "b/up": "../dir/../../b/file", "a/deep/up": "../file",
		"a/deep/top": "../../file", "b/out": "../../../../../../" + g.Path("a/file"), "a/deep/self": "../../dir/../deep/./file",
	}
	for name, target := range links {
		require.NoError(t, os.Symlink(target, g.Path(name)))
	}
	for _, name := range []string{"through", "absolute", "b/up", "a/deep/up", "dir/up", "a/deep/top", "dir/top", "b/out", "dir/self"} {
		want, err := os.ReadFile(g.Path(name))
		require.NoError(t, err)
		o, _, err := ParseURL(g.StockURL(name))
		require.NoError(t, err)
		r, err := NewReader(o)
		require.NoError(t, err, name)
		got := make([]byte, len(want))
		_, err = r.ReadAt(got, 0)
		require.NoError(t, err, name)
		require.Equal(t, string(want), string(got), name)
		r.Close()
	}
}
