package raw

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/internal/imagelock"
)

// faulty is a kernel whose calls fail, or stop short, as the test says. Its fields are changed between requests only.
type faulty struct {
	kernel
	syncErr     error
	plainErr    error
	durableErr  error
	allocateErr map[uint32]error // by mode
	shortest    int              // longest transfer; 0 = no limit
	calls       []string
}

func (f *faulty) sync(t *blockcore.Task, fd int) error {
	f.calls = append(f.calls, "sync")
	if f.syncErr != nil {
		return f.syncErr
	}
	return f.kernel.sync(t, fd)
}

func (f *faulty) cut(p []byte) []byte {
	if f.shortest > 0 {
		return p[:min(len(p), f.shortest)]
	}
	return p
}

func (f *faulty) readNow(fd int, p []byte, off int64, flags int) (int, error) {
	f.calls = append(f.calls, "readNow")
	return f.kernel.readNow(fd, f.cut(p), off, flags)
}

func (f *faulty) read(t *blockcore.Task, fd int, p []byte, off int64) (int, error) {
	f.calls = append(f.calls, "read")
	return f.kernel.read(t, fd, f.cut(p), off)
}

func (f *faulty) writeNow(fd int, p []byte, off int64, flags int) (int, error) {
	f.calls = append(f.calls, "writeNow")
	if f.plainErr != nil {
		return 0, f.plainErr
	}
	return f.kernel.writeNow(fd, f.cut(p), off, flags)
}

func (f *faulty) write(t *blockcore.Task, fd int, p []byte, off int64, flags int) (int, error) {
	err := f.plainErr
	if flags&unix.RWF_DSYNC != 0 {
		f.calls = append(f.calls, "write dsync")
		err = f.durableErr
	} else {
		f.calls = append(f.calls, "write")
	}
	if err != nil {
		return 0, err
	}
	return f.kernel.write(t, fd, f.cut(p), off, flags)
}

func (f *faulty) allocate(t *blockcore.Task, fd int, mode uint32, off, length int64) error {
	f.calls = append(f.calls, map[uint32]string{
		0: "allocate", unix.FALLOC_FL_ZERO_RANGE: "zero range", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE: "punch",
	}[mode])
	if err := f.allocateErr[mode]; err != nil {
		return err
	}
	return f.kernel.allocate(t, fd, mode, off, length)
}

func (f *faulty) take() []string {
	calls := f.calls
	f.calls = nil
	return calls
}

// rig is an open file over a faulty kernel.
type rig struct {
	t      *testing.T
	ctx    *blockcore.AioContext
	f      *File
	system *faulty
	paced  bool // a slow write counts
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	o.Path = makeFile(t, t.TempDir(), 64<<10)
	r := &rig{t: t, ctx: ctx, f: openIn(t, ctx, o), system: &faulty{}}
	r.f.system = r.system
	return r
}

// forgives has the next write go the way that it takes where none was slow: on a machine that is busy one may have been.
func (r *rig) forgives() {
	if !r.paced {
		r.f.pace.until.Store(0)
	}
}

func (r *rig) write(n int, flags blockcore.WriteFlags) error {
	r.forgives()
	return r.ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(n)
		defer t.Buffers().Put(p)
		for i := range p {
			p[i] = 1
		}
		return r.f.WriteAt(t, p, 0, flags)
	})
}

func (r *rig) read(n int) error {
	return r.ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(n)
		defer t.Buffers().Put(p)
		return r.f.ReadAt(t, p, 0)
	})
}

func (r *rig) zero(flags blockcore.ZeroFlags) error {
	return r.ctx.Do(func(t *blockcore.Task) error {
		return r.f.WriteZeroes(t, blockcore.Range{Length: 4096}, flags)
	})
}

// requireDamaged checks that nothing promises durability any more and everything else goes on.
func (r *rig) requireDamaged() {
	r.t.Helper()
	*r.system = faulty{} // the kernel reports the error once and then says all is well
	for name, err := range map[string]error{
		"flush": r.ctx.Do(r.f.Flush), "FUA write": r.write(512, blockcore.WriteFUA), "FUA zero": r.zero(blockcore.ZeroFUA),
	} {
		require.ErrorIs(r.t, err, unix.EIO, name)
		require.ErrorContains(r.t, err, "reopen the image", name)
	}
	require.NoError(r.t, r.write(512, 0))
	require.NoError(r.t, r.read(512))
	require.NoError(r.t, r.zero(0))
}

// Goal: FL-2: after a failed sync, of a flush, of a FUA write or of FUA zeroes, nothing claims to be durable until the file
// is reopened, though the kernel says so; method: each kind of failure once, then a kernel that is well.
func TestFL2SyncErrorsStick(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault faulty
		fail  func(*rig) error
	}{
		{"flush EIO", faulty{syncErr: unix.EIO}, func(r *rig) error { return r.ctx.Do(r.f.Flush) }},
		{"flush ENOSPC", faulty{syncErr: unix.ENOSPC}, func(r *rig) error { return r.ctx.Do(r.f.Flush) }},
		{"FUA write EIO", faulty{durableErr: unix.EIO}, func(r *rig) error { return r.write(512, blockcore.WriteFUA) }},
		{"FUA write ENOSPC from its sync", faulty{durableErr: unix.ENOSPC}, func(r *rig) error { return r.write(512, blockcore.WriteFUA) }},
		{"FUA zeroes EIO", faulty{syncErr: unix.EIO}, func(r *rig) error { return r.zero(blockcore.ZeroFUA) }},
	} {
		for _, o := range []Options{{}, {Map: MapAlways}} {
			t.Run(fmt.Sprintf("%s mapped=%t", c.name, o.Map == MapAlways), func(t *testing.T) {
				r := newRig(t, o)
				require.NoError(t, r.write(512, blockcore.WriteFUA))
				require.NoError(t, r.write(512, 0))
				*r.system = c.fault
				err := c.fail(r)
				require.ErrorIs(t, err, unix.EIO)
				require.ErrorContains(t, err, "may be lost")
				r.requireDamaged()
				again := openIn(t, r.ctx, Options{Path: r.f.path, Locking: imagelock.Off})
				require.NoError(t, r.ctx.Do(again.Flush))
			})
		}
	}
}

// Goal: a FUA write that failed before anything was to be synced (disk full) spoils nothing; method: a kernel in which the
// plain write fails as well.
func TestFUAWriteWithoutSpaceIsNoDamage(t *testing.T) {
	r := newRig(t, Options{Cache: Cache{Writethrough: true}})
	*r.system = faulty{durableErr: unix.ENOSPC, plainErr: unix.ENOSPC}
	require.ErrorIs(t, r.write(512, 0), unix.ENOSPC)
	*r.system = faulty{}
	require.NoError(t, r.ctx.Do(r.f.Flush))
	require.NoError(t, r.write(512, blockcore.WriteFUA))
}

// Goal: a failed plain write is its own affair and keeps its errno; method: each errno that clients are told apart, then
// a flush.
func TestPlainWriteErrors(t *testing.T) {
	r := newRig(t, Options{})
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG, unix.EIO} {
		*r.system = faulty{plainErr: errno}
		require.ErrorIs(t, r.write(512, 0), errno)
		*r.system = faulty{}
		require.NoError(t, r.ctx.Do(r.f.Flush))
	}
}

// Goal: each caching mode syncs exactly when it has to; method: the calls that reach the kernel.
func TestCachingModes(t *testing.T) {
	for _, c := range []struct {
		name              string
		o                 Options
		plain, fua, flush []string
	}{
		{"writeback", Options{}, []string{"writeNow"}, []string{"write dsync"}, []string{"sync"}},
		{"none", Options{Cache: Cache{Direct: true}}, []string{"write"}, []string{"write dsync"}, []string{"sync"}},
		{"writethrough", Options{Cache: Cache{Writethrough: true}}, []string{"write dsync"}, []string{"write dsync"}, []string{"sync"}},
		{"directsync", Options{Cache: Cache{Direct: true, Writethrough: true}}, []string{"write dsync"}, []string{"write dsync"}, []string{"sync"}},
		{"unsafe", Options{Cache: Cache{NoFlush: true}}, []string{"writeNow"}, []string{"writeNow"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.o)
			r.f.lacks.writeNow.Store(true) // so that each write is one call everywhere
			require.NoError(t, r.write(4096, 0))
			require.Equal(t, c.plain, r.system.take())
			require.NoError(t, r.write(4096, blockcore.WriteFUA))
			require.Equal(t, c.fua, r.system.take())
			require.NoError(t, r.ctx.Do(r.f.Flush))
			require.Equal(t, c.flush, r.system.take())
		})
	}
}

// Goal: transfers that stop short are continued, with O_DIRECT from a block boundary; method: a kernel that moves at most
// 700 or 1536 bytes at a time.
func TestShortTransfers(t *testing.T) {
	for _, o := range []Options{{}, {Cache: Cache{Direct: true}}, {Cache: Cache{Writethrough: true}}} {
		blocktest.TestDriver(t, func(t *testing.T) blocktest.Subject {
			o := o
			o.Path = makeFile(t, t.TempDir(), 16<<10)
			f := mustOpen(t, o)
			f.system = &faulty{shortest: 700}
			if f.directAlign > 1 {
				f.system = &faulty{shortest: int(3 * f.directAlign)}
			}
			return blocktest.Subject{Driver: f}
		})
	}
}

// Goal: the way to zero is found once and remembered, and fast zeroing never falls back to writing; method: the calls made
// for file systems of all kinds, twice each.
func TestZeroLadder(t *testing.T) {
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	none := unix.EOPNOTSUPP
	for _, c := range []struct {
		name          string
		lacks         map[uint32]error
		flags         blockcore.ZeroFlags
		first, second []string
		err           error
	}{
		{"all", nil, 0, []string{"zero range"}, []string{"zero range"}, nil},
		{"all, unmap", nil, blockcore.ZeroMayUnmap, []string{"punch"}, []string{"punch"}, nil},
		{"tmpfs", map[uint32]error{unix.FALLOC_FL_ZERO_RANGE: none}, 0,
			[]string{"zero range", "allocate", "punch", "allocate"}, []string{"punch", "allocate"}, nil},
		{"no holes", map[uint32]error{punch: none}, blockcore.ZeroMayUnmap, []string{"punch", "zero range"}, []string{"zero range"}, nil},
		{"nothing", map[uint32]error{0: none, punch: none, unix.FALLOC_FL_ZERO_RANGE: none}, blockcore.ZeroNoFallback,
			[]string{"zero range", "allocate"}, nil, unix.ENOTSUP},
		{"nothing, unmap", map[uint32]error{0: none, punch: none, unix.FALLOC_FL_ZERO_RANGE: none}, blockcore.ZeroMayUnmap,
			[]string{"punch", "zero range"}, nil, unix.ENOTSUP},
		{"not this range", map[uint32]error{unix.FALLOC_FL_ZERO_RANGE: unix.EINVAL, 0: none}, 0,
			[]string{"zero range", "allocate"}, []string{"zero range"}, unix.ENOTSUP},
		{"full", map[uint32]error{unix.FALLOC_FL_ZERO_RANGE: unix.ENOSPC}, 0, []string{"zero range"}, []string{"zero range"}, unix.ENOSPC},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{Discard: DiscardUnmap})
			r.system.allocateErr = c.lacks
			require.ErrorIs(t, r.zero(c.flags), c.err)
			require.Equal(t, c.first, r.system.take())
			require.ErrorIs(t, r.zero(c.flags), c.err)
			require.Equal(t, c.second, r.system.take())
		})
	}
}

// Goal: discard=ignore touches nothing, neither by a discard nor by zeroes that may unmap; method: the calls made.
func TestDiscardIgnore(t *testing.T) {
	r := newRig(t, Options{})
	require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error {
		return r.f.Discard(t, blockcore.Range{Length: 4096})
	}))
	require.Empty(t, r.system.take())
	require.NoError(t, r.zero(blockcore.ZeroMayUnmap))
	require.Equal(t, []string{"zero range"}, r.system.take())
}

// Goal: a file that was cut off under us is an error and not zeroes; method: truncate it and read.
func TestFileCutOff(t *testing.T) {
	r := newRig(t, Options{})
	require.NoError(t, r.write(8192, 0))
	require.NoError(t, unix.Truncate(r.f.path, 4096))
	require.NoError(t, r.read(4096))
	err := r.read(8192)
	require.ErrorIs(t, err, unix.EIO)
	require.ErrorContains(t, err, "the file ends here")
}

// slowWrites is a kernel that is throttled: each inline write takes its time.
type slowWrites struct {
	*faulty
	ctx  *blockcore.AioContext
	slow bool
}

func (s *slowWrites) writeNow(fd int, p []byte, off int64, flags int) (int, error) {
	for begin := s.ctx.Now(); s.slow && s.ctx.Now()-begin < 2*paceSlow; {
		// A thread in the kernel does not yield either.
	}
	return s.faulty.writeNow(fd, p, off, flags)
}

// Goal: after a slow inline write the next ones are the engine's, and when the detour is over the loop tries again; method:
// a kernel that is throttled once, in the middle of a long detour's history.
func TestSlowWriteLeavesTheLoop(t *testing.T) {
	r := newRig(t, Options{})
	r.paced = true
	slow := &slowWrites{faulty: r.system, ctx: r.ctx, slow: true}
	r.f.system = slow
	r.f.lacks.writeNow.Store(true)
	r.f.pace.detour.Store(int64(paceDetourMax))
	r.f.pace.until.Store(int64(r.ctx.Now()))
	require.NoError(t, r.write(512, 0))
	require.Equal(t, []string{"writeNow"}, r.system.take())
	require.GreaterOrEqual(t, r.f.pace.detour.Load(), int64(paceDetourMax), "the detour is as long as the one before, or longer")
	r.f.pace.until.Store(math.MaxInt64) // whatever time it is
	for range 2 {
		require.NoError(t, r.write(512, 0))
	}
	require.Equal(t, []string{"write", "write"}, r.system.take())
	slow.slow = false
	r.f.pace.until.Store(int64(r.ctx.Now()))
	require.NoError(t, r.write(512, 0))
	require.Equal(t, []string{"writeNow"}, r.system.take())
}

// nowait is a kernel whose file system knows RWF_NOWAIT for writes, and is as ready as the test says.
type nowait struct {
	*faulty
	err error
}

func (n *nowait) writeNow(fd int, p []byte, off int64, flags int) (int, error) {
	n.calls = append(n.calls, "nowait")
	if n.err != nil {
		return 0, n.err
	}
	return n.kernel.writeNow(fd, p, off, flags&^unix.RWF_NOWAIT)
}

// Goal: where the file system can write without waiting it is asked to, and the engine writes what would wait; method: such
// a kernel, first ready, then not.
func TestWriteNowait(t *testing.T) {
	r := newRig(t, Options{})
	system := &nowait{faulty: r.system}
	r.f.system = system
	require.NoError(t, r.write(512, 0))
	require.Equal(t, []string{"nowait"}, r.system.take())
	system.err = unix.EAGAIN
	require.NoError(t, r.write(512, 0))
	require.Equal(t, []string{"nowait", "write"}, r.system.take())
}

// Goal: a discard that the file system or device cannot do is a success, tried once; method: such kernels.
func TestDiscardUnsupported(t *testing.T) {
	r := newRig(t, Options{Discard: DiscardUnmap})
	r.system.allocateErr = map[uint32]error{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE: unix.EOPNOTSUPP}
	discard := func(t *blockcore.Task) error { return r.f.Discard(t, blockcore.Range{Length: 4096}) }
	require.NoError(t, r.ctx.Do(discard))
	require.NoError(t, r.ctx.Do(discard))
	require.Equal(t, []string{"punch"}, r.system.take())
	r.f.device.block = true // BLKDISCARD on a regular file is ENOTTY
	require.NoError(t, r.ctx.Do(discard))
	require.True(t, r.f.lacks.discard.Load())
	require.NoError(t, r.ctx.Do(discard))
	require.Empty(t, r.system.take())
}

// overlapping is a kernel in which the first sync loses data, and the report of it goes to the second one, which
// returns later.
type overlapping struct {
	kernel
	calls  int
	second blockcore.WaitQueue
}

func (o *overlapping) sync(t *blockcore.Task, fd int) error { return o.report(t) }

func (o *overlapping) write(t *blockcore.Task, fd int, p []byte, off int64, flags int) (int, error) {
	if err := o.report(t); err != nil {
		return 0, err
	}
	return len(p), nil
}

// report lets the call that came first return at once when the second has come, and fails the second after that.
func (o *overlapping) report(t *blockcore.Task) error {
	o.calls++
	if o.calls == 1 {
		t.Wait(&o.second)
		return nil
	}
	o.second.WakeAll()
	for range 3 {
		t.Yield()
	}
	return unix.EIO
}

// FL-2: two syncs overlap, the kernel tells the one that returns last of the data that both promised;
// neither may be acknowledged. All pairs of flush and FUA write.
func TestOverlappingSyncsShareTheError(t *testing.T) {
	flush := func(r *rig) error { return r.ctx.Do(r.f.Flush) }
	write := func(r *rig) error { return r.write(4096, blockcore.WriteFUA) }
	for name, pair := range map[string][2]func(*rig) error{
		"flush flush": {flush, flush}, "flush write": {flush, write},
		"write flush": {write, flush}, "write write": {write, write},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.f.system = &overlapping{}
			errs := make(chan error, 2)
			for _, do := range pair {
				go func() { errs <- do(r) }()
			}
			require.ErrorIs(t, <-errs, unix.EIO)
			require.ErrorIs(t, <-errs, unix.EIO)
		})
	}
}

// Goal: a long buffered write does not wait on the loop for the inode that the engine has; a short one, and one that is alone, are the
// loop's. Method: the calls that reach the kernel, with and without another write under way.
func TestLongWritesBesideOthers(t *testing.T) {
	r := newRig(t, Options{Map: MapOff})
	r.f.lacks.writeNow.Store(true)
	for _, c := range []struct {
		away, n int
		want    string
	}{
		{0, inlinePiece, "writeNow"}, {0, 4096, "writeNow"}, {1, awayMin, "write"}, {1, inlinePiece - 4096, "writeNow"},
	} {
		require.NoError(t, r.ctx.Do(func(*blockcore.Task) error { r.f.away = c.away; return nil }))
		require.NoError(t, r.write(c.n, 0))
		require.Equal(t, []string{c.want}, r.system.take(), "%+v", c)
		require.NoError(t, r.ctx.Do(func(*blockcore.Task) error {
			require.Equal(t, c.away, r.f.away)
			return nil
		}))
	}
}
