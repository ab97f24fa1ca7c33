package raw

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// newMappedRig is a rig whose file is on a disk's file system and is mapped with the first request. What is found resident is
// believed for as long as given.
func newMappedRig(t *testing.T, o Options, believed time.Duration) *rig {
	t.Helper()
	o.Map = MapAlways
	r := newRig(t, o)
	require.NotNil(t, r.f.views, "the file system of TMPDIR can be mapped")
	r.f.views.residency.lasts = believed
	return r
}

// at does one request on a buffer that is filled with fill.
func (r *rig) at(off int64, n int, fill byte, do func(t *blockcore.Task, p []byte, off int64) error) (byte, error) {
	var got byte
	err := r.ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(n)
		defer t.Buffers().Put(p)
		for i := range p {
			p[i] = fill
		}
		err := do(t, p, off)
		got = p[n-1]
		return err
	})
	return got, err
}

func (r *rig) writeAt(off int64, n int, fill byte) error {
	r.forgives()
	_, err := r.at(off, n, fill, func(t *blockcore.Task, p []byte, off int64) error { return r.f.WriteAt(t, p, off, 0) })
	return err
}

func (r *rig) readAt(off int64, n int) (byte, error) { return r.at(off, n, 0, r.f.ReadAt) }

// requireOther checks what another process sees.
func (r *rig) requireOther(off int64, n int, fill byte) {
	r.t.Helper()
	text, err := os.ReadFile(r.f.path)
	require.NoError(r.t, err)
	require.Equal(r.t, bytes.Repeat([]byte{fill}, n), text[off:off+int64(n)])
}

// Goal: what is in the page cache is read and written without system calls, and what is not goes the ordinary way, whatever
// the size; method: the calls that reach the kernel, and what another opener of the file sees.
func TestMappedHits(t *testing.T) {
	r := newMappedRig(t, Options{Discard: DiscardUnmap}, 0)
	r.f.lacks.writeNow.Store(true)
	require.NoError(t, r.writeAt(4096, 4096, 1))
	require.Equal(t, []string{"writeNow"}, r.system.take(), "the page is not there yet")
	require.NoError(t, r.writeAt(8000, 400, 1))
	require.Equal(t, []string{"writeNow"}, r.system.take(), "half of it is on a page that is not there")
	for _, part := range []struct {
		off int64
		n   int
	}{{4096, 4096}, {5000, 100}, {4096, 512}} {
		require.NoError(t, r.writeAt(part.off, part.n, 2))
		got, err := r.readAt(part.off, part.n)
		require.NoError(t, err)
		require.Equal(t, byte(2), got)
		r.requireOther(part.off, part.n, 2)
	}
	require.Empty(t, r.system.take())

	require.NoError(t, r.writeAt(8192, 4096, 3))
	r.system.take()
	require.NoError(t, r.writeAt(8000, 400, 4))
	require.Empty(t, r.system.take(), "two pages that are there")
	r.requireOther(8000, 400, 4)

	require.NoError(t, unix.Fadvise(r.f.fd, 0, 0, unix.FADV_DONTNEED)) // dirty pages stay
	require.NoError(t, r.ctx.Do(r.f.Flush))
	require.NoError(t, unix.Fadvise(r.f.fd, 0, 0, unix.FADV_DONTNEED))
	r.system.take()
	require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error { return r.f.Discard(t, blockcore.Range{Offset: 4096, Length: 8192}) }))
	got, err := r.readAt(4096, 4096)
	require.NoError(t, err)
	require.Zero(t, got)
}

// Goal: nothing that has to be durable or refused goes by the mapping; method: the calls of each caching mode, and a
// read-only file.
func TestMappedModes(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     Options
		plain []string
		fua   []string
	}{
		{"writeback", Options{}, nil, []string{"write dsync"}},
		{"unsafe", Options{Cache: Cache{NoFlush: true}}, nil, nil},
		{"writethrough", Options{Cache: Cache{Writethrough: true}}, []string{"write dsync"}, []string{"write dsync"}},
		{"detect zeroes", Options{DetectZeroes: DetectOn}, nil, []string{"write dsync"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newMappedRig(t, c.o, 0)
			r.f.lacks.writeNow.Store(true)
			require.NoError(t, r.write(4096, 0))
			r.system.take()
			require.NoError(t, r.write(4096, 0))
			require.Equal(t, c.plain, r.system.take())
			require.NoError(t, r.read(4096))
			require.Empty(t, r.system.take())
			require.NoError(t, r.write(4096, blockcore.WriteFUA))
			require.Equal(t, c.fua, r.system.take())
		})
	}
	r := newMappedRig(t, Options{}, 0)
	require.NoError(t, r.write(4096, 0))
	reader := &rig{t: t, ctx: r.ctx, system: &faulty{}}
	reader.f = openIn(t, r.ctx, Options{Path: r.f.path, ReadOnly: true, ForceShare: true, Map: MapAlways})
	reader.f.system = reader.system
	got, err := reader.readAt(0, 4096)
	require.NoError(t, err)
	require.Equal(t, byte(1), got)
	require.Empty(t, reader.system.take())
	require.ErrorIs(t, reader.write(4096, 0), unix.EROFS)
	off := openIn(t, r.ctx, Options{Path: r.f.path, Locking: imagelock.Off, Map: MapOff})
	require.Nil(t, off.views)
}

// Goal: a file that somebody cuts off under a mapping ends no process: writes do what they always did, reads are errors, and
// after a while the mapping is used again; method: truncate it while its pages are believed to be there.
func TestMappedFileCutOff(t *testing.T) {
	r := newMappedRig(t, Options{}, time.Hour)
	r.f.lacks.writeNow.Store(true)
	require.NoError(t, r.read(512)) // asks for the region
	require.NoError(t, r.writeAt(0, 64<<10, 1))
	require.NoError(t, r.writeAt(32<<10, 4096, 2))
	r.system.take()
	require.NoError(t, unix.Truncate(r.f.path, 4096))
	_, err := r.readAt(32<<10, 4096)
	require.ErrorIs(t, err, unix.EIO)
	require.ErrorContains(t, err, "the file ends here")
	w := r.f.views.slots[0].view
	require.NotZero(t, w.restUntil)
	w.restUntil = 0
	r.system.take()
	require.NoError(t, r.writeAt(32<<10, 4096, 3))
	require.Equal(t, []string{"writeNow"}, r.system.take())
	r.requireOther(32<<10, 4096, 3)
	require.NoError(t, r.writeAt(32<<10, 4096, 4))
	require.Equal(t, []string{"writeNow"}, r.system.take(), "the view rests")
	w.restUntil = 0
	require.NoError(t, r.writeAt(32<<10, 4096, 5))
	require.Empty(t, r.system.take())
	r.requireOther(32<<10, 4096, 5)
}

// Goal: what was written through a mapping into the last page is not lost when the file ends inside of it; method: a file
// that is cut off inside of a page by somebody else, and one that is so from the start.
func TestMappedPartOfAPage(t *testing.T) {
	r := newMappedRig(t, Options{}, 0)
	require.NoError(t, r.write(8192, 0))
	require.NoError(t, unix.Truncate(r.f.path, 4096+512))
	require.NoError(t, r.writeAt(4096, 1024, 7))
	r.requireOther(4096, 1024, 7)
	_, err := r.readAt(4096, 4096)
	require.ErrorIs(t, err, unix.EIO)
}

// fullDisk mounts a file system of a few MiB and fills what is left beside a sparse file of 1 MiB, whose path it returns.
func fullDisk(t *testing.T, kind string) (path string, free func()) {
	t.Helper()
	dir := t.TempDir()
	switch kind {
	case "tmpfs":
		require.NoError(t, unix.Mount("none", dir, "tmpfs", 0, "size=2m"))
	case "ext4":
		image := makeFile(t, t.TempDir(), 16<<20)
		out, err := exec.Command("/sbin/mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image).CombinedOutput()
		require.NoError(t, err, "%s", out)
		out, err = exec.Command("mount", "-o", "loop", image, dir).CombinedOutput()
		require.NoError(t, err, "the test needs loop devices: %s", out)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	path = makeFile(t, dir, 1<<20)
	ballast, err := os.CreateTemp(dir, "ballast")
	require.NoError(t, err)
	defer ballast.Close()
	piece := make([]byte, 4096)
	for err == nil {
		_, err = ballast.Write(piece)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	return path, func() { require.NoError(t, os.Remove(ballast.Name())) }
}

// Goal: a store into a hole of a full file system is ENOSPC of that WRITE, and the server lives and goes on when there is
// space again; method: small file systems that are full, a page of the hole in the cache (ext4), or believed to be.
func TestMappedENOSPC(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			path, free := fullDisk(t, kind)
			r := newRig(t, Options{})
			r.f = openIn(t, r.ctx, Options{Path: path, Map: MapAlways})
			require.NotNil(t, r.f.views)
			r.f.system = r.system
			r.f.lacks.writeNow.Store(true)
			r.f.views.residency.lasts = time.Hour
			_, err := r.readAt(8192, 4096)
			require.NoError(t, err)
			w := r.f.views.slots[0].view
			if kind == "tmpfs" { // a read leaves a hole a hole there
				w.regions[0].resident.add(2)
			} else {
				w.regions[0].until = 0
			}
			r.system.take()
			require.ErrorIs(t, r.writeAt(8192, 4096, 1), unix.ENOSPC)
			require.Equal(t, []string{"writeNow"}, r.system.take())
			require.NotZero(t, w.restUntil, "there was a fault")
			require.NoError(t, r.ctx.Do(r.f.Flush))
			got, err := r.readAt(8192, 4096)
			require.NoError(t, err)
			require.Zero(t, got)
			free()
			w.restUntil = 0
			require.NoError(t, r.writeAt(8192, 4096, 2))
			require.NoError(t, r.ctx.Do(r.f.Flush))
			r.requireOther(8192, 4096, 2)
		})
	}
}

// Goal: only a fault in the mapping is taken for one; method: a view copies to and from memory that cannot be
// touched, and from a slice that is too short.
func TestMappedOtherPanicsGoOn(t *testing.T) {
	r := newMappedRig(t, Options{}, 0)
	require.NoError(t, r.read(512))
	w := r.f.views.slots[0].view
	foreign, err := unix.Mmap(-1, 0, 8192, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	require.NoError(t, err)
	defer unix.Munmap(foreign)
	require.Panics(t, func() { w.store(foreign[:4096], 0) })
	require.Panics(t, func() { w.load(foreign[:4096], 0) })
	require.Panics(t, func() { w.load(make([]byte, 10), -1) })
	require.True(t, w.store(make([]byte, 10), 0))
}

// Goal: a slow load, of a page that has left the cache after all, sends those after it the ordinary way for a while; method: the
// history of a slow one.
func TestSlowLoadLeavesTheMapping(t *testing.T) {
	r := newMappedRig(t, Options{}, 0)
	require.NoError(t, r.write(4096, 0))
	require.NoError(t, r.read(4096))
	r.system.take()
	r.f.views.loads.observe(r.ctx.Now()+time.Hour, time.Second, 4096)
	require.NoError(t, r.read(4096))
	require.NotEmpty(t, r.system.take())
}
