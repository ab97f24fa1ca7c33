package raw

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/internal/membuf"
)

// Goal: a full file system is ENOSPC for writes, for FUA writes and for zeroes that provision, and harms neither flush nor
// what was there; method: a tmpfs of 256 KiB.
func TestENOSPC(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, unix.Mount("none", dir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	const half = 128 << 10
	f := mustOpen(t, Options{Path: makeFile(t, dir, 1<<20)})
	defer func() { require.NoError(t, ctx.Do(f.Close)) }()
	write := func(off int64, n int, flags blockcore.WriteFlags) error {
		return ctx.Do(func(t *blockcore.Task) error {
			p := t.Buffers().Get(n)
			defer t.Buffers().Put(p)
			for i := range p {
				p[i] = 1
			}
			return f.WriteAt(t, p, off, flags)
		})
	}
	require.NoError(t, write(0, half, 0))
	require.ErrorIs(t, write(half, 2*half, 0), unix.ENOSPC)
	require.ErrorIs(t, write(half, 2*half, blockcore.WriteFUA), unix.ENOSPC)
	require.ErrorIs(t, ctx.Do(func(t *blockcore.Task) error {
		return f.WriteZeroes(t, blockcore.Range{Offset: 2 * half, Length: 4 * half}, 0)
	}), unix.ENOSPC)
	require.NoError(t, ctx.Do(f.Flush))
	require.NoError(t, write(0, half, blockcore.WriteFUA))
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(half)
		defer t.Buffers().Put(p)
		if err := f.ReadAt(t, p, 0); err != nil {
			return err
		}
		if p[0] != 1 || p[half-1] != 1 {
			return unix.EBADMSG
		}
		return nil
	}))
}

// Goal: zeroing and discarding more than 4 GiB works, in pieces between which others run, and gives storage back;
// method: a sparse 6 GiB file with data at both ends, and a Task that counts its turns meanwhile.
func TestBigZeroes(t *testing.T) {
	const size = 6 << 30
	for _, unmap := range []blockcore.ZeroFlags{0, blockcore.ZeroMayUnmap} {
		ctx := blocktest.NewContext(t, blockcore.EngineAuto)
		f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), size), Discard: DiscardUnmap})
		for _, off := range []int64{0, size - 4096} {
			require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
				p := t.Buffers().Get(4096)
				defer t.Buffers().Put(p)
				p[0], p[4095] = 1, 1
				return f.WriteAt(t, p, off, 0)
			}))
		}
		turns := 0
		running := true
		other := make(chan struct{})
		ctx.Post(func() {
			ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
				for running {
					turns++
					t.Yield()
				}
				close(other)
			}))
		})
		require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
			err := f.WriteZeroes(t, blockcore.Range{Length: size}, unmap)
			running = false
			return err
		}))
		<-other
		require.GreaterOrEqual(t, turns, size/pieceBytes)
		require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
			p := t.Buffers().Get(4096)
			defer t.Buffers().Put(p)
			if err := f.ReadAt(t, p, size-4096); err != nil || !membuf.AllZero(p) {
				return unix.EBADMSG
			}
			return f.Discard(t, blockcore.Range{Length: size})
		}))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(f.Path(), &st))
		require.Less(t, st.Blocks*512, int64(1<<20), "storage was given back")
		require.Equal(t, int64(size), st.Size)
	}
}

// Goal: written zeroes leave no storage behind with detect-zeroes=unmap; method: write data, then zeroes, and look at
// the blocks of the file.
func TestDetectZeroesUnmaps(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	const n = 1 << 20
	f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), n), Discard: DiscardUnmap, DetectZeroes: DetectUnmap})
	blocks := func(fill byte) int64 {
		require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
			p := t.Buffers().Get(n)
			defer t.Buffers().Put(p)
			for i := range p {
				p[i] = fill
			}
			if err := f.WriteAt(t, p, 0, 0); err != nil {
				return err
			}
			return f.Flush(t)
		}))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(f.Path(), &st))
		return st.Blocks * 512
	}
	require.GreaterOrEqual(t, blocks(1), int64(n))
	require.Less(t, blocks(0), int64(n/4))
}

// loopDevice makes a block device of a file.
func loopDevice(t *testing.T, sizeBytes int64, sectorBytes string) string {
	t.Helper()
	image := makeFile(t, t.TempDir(), sizeBytes)
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", sectorBytes, image).CombinedOutput()
	require.NoError(t, err, "the test needs loop devices: %s", out)
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "--detach", device).Run()) })
	return device
}

// Goal: a block device is a correct disk; method: the suite on loop devices of both sector sizes, wiped before each
// part.
func TestBlockDeviceConforms(t *testing.T) {
	const size = 256 << 10
	for _, sectors := range []string{"512", "4096"} {
		device := loopDevice(t, size, sectors)
		for _, c := range []struct {
			name string
			o    Options
		}{
			{"writeback", Options{Discard: DiscardUnmap}},
			{"none", Options{Cache: Cache{Direct: true}, Discard: DiscardUnmap, Offset: 4096}},
		} {
			t.Run(sectors+" "+c.name, func(t *testing.T) {
				o := c.o
				o.Path = device
				blocktest.TestDriver(t, func(t *testing.T) blocktest.Subject {
					require.NoError(t, os.WriteFile(device, make([]byte, size), 0))
					return blocktest.Subject{
						Driver:    mustOpen(t, o),
						Reopen:    func() blockcore.Driver { return mustOpen(t, o) },
						SizeFixed: true,
					}
				})
			})
		}
	}
}

// Goal: what is found out about a block device is what the kernel says elsewhere; method: compare with sysfs.
func TestInspectBlockDevice(t *testing.T) {
	device := loopDevice(t, 1<<20, "512")
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	f := openIn(t, ctx, Options{Path: device})
	require.Equal(t, int64(1<<20), f.Size())
	require.Equal(t, int64(512), f.Limits().Align)
	sysfs := func(name string) string {
		text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "queue", name))
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	require.Equal(t, sysfs("rotational") == "1", f.Features().Rotational)
	require.Equal(t, sysfs("write_zeroes_max_bytes") != "0", f.Features().FastZero)
	require.Equal(t, []blockcore.Extent{dataExtent(1 << 20)}, mapOf(t, ctx, f))
}

// Goal: a disk whose format was guessed cannot be given another one; method: a guard that knows one magic, writes at and
// beside the first sector.
func TestGuardOfTheFirstSector(t *testing.T) {
	r := newRig(t, Options{RequireAlign512: true, Guard: func(block0 []byte) error {
		require.Len(t, block0, 512)
		if block0[0] == 1 {
			return unix.EPERM
		}
		return nil
	}})
	require.ErrorIs(t, r.write(4096, 0), unix.EPERM)
	require.ErrorIs(t, r.write(512, blockcore.WriteFUA), unix.EPERM)
	require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(1024)
		defer t.Buffers().Put(p)
		clear(p)
		if err := r.f.WriteAt(t, p, 0, 0); err != nil {
			return err
		}
		p[0] = 1
		return r.f.WriteAt(t, p, 512, 0)
	}))
}
