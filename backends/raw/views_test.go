package raw

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// openViews opens a sparse file with views of its own budget, which have to be earned.
func openViews(t *testing.T, ctx *blockcore.AioContext, sizeBytes, budget int64) (*File, *mapBudget) {
	t.Helper()
	f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), sizeBytes)})
	require.NotNil(t, f.views)
	f.views.budget = &mapBudget{max: budget}
	return f, f.views.budget
}

// ask counts n requests for parts of the file, as next says, and returns how many found a view.
func ask(t *testing.T, ctx *blockcore.AioContext, f *File, n int, next func() int64) (found int) {
	t.Helper()
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
		for range n {
			if f.views.at(t, next()*viewBytes, 4096) != nil {
				found++
			}
		}
		return nil
	}))
	return found
}

// Goal: requests spread over a disk much larger than all views map nothing, and what is busy among them is mapped and stays
// so; method: random parts of 4 TiB, then with every other request for one part, then for another one that wants
// its slot.
func TestViewsVote(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	const parts = 4 << 40 / viewBytes
	f, budget := openViews(t, ctx, 4<<40, mappedMax)
	random := rand.New(rand.NewPCG(1, 2))
	spread := func() int64 { return random.Int64N(parts) }
	require.Zero(t, ask(t, ctx, f, 200_000, spread))
	require.Zero(t, budget.used.Load())

	hot := int64(7)
	turn := 0
	half := func() int64 {
		if turn++; turn%2 == 0 {
			return hot
		}
		return spread()
	}
	found := ask(t, ctx, f, 20_000, half)
	require.Greater(t, found, 10_000-2*mapAfter)
	require.Equal(t, int64(viewBytes), budget.used.Load())

	hot += slotsMax
	require.Zero(t, ask(t, ctx, f, 2*(scoreMax-100), half), "the old one had earned its place")
	require.Greater(t, ask(t, ctx, f, 20_000, half), 9_000-2*mapAfter)
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error { return t.Block(func() error { return nil }) }))
	require.Eventually(t, func() bool { return budget.used.Load() == viewBytes }, time.Minute, time.Millisecond)
}

// Goal: the process maps no more than it may, and who finds nothing left goes without; method: a budget of two views for
// three busy parts.
func TestViewsBudget(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	f, budget := openViews(t, ctx, 8*viewBytes, 2*viewBytes)
	for part := range int64(3) {
		found := ask(t, ctx, f, 2*mapAfter, func() int64 { return part })
		require.Equal(t, part < 2, found > 0, "part %d", part)
	}
	require.Equal(t, int64(2*viewBytes), budget.used.Load())
	var views []*view
	require.NoError(t, ctx.Do(func(*blockcore.Task) error { views = f.views.takeAll(); return nil }))
	require.Len(t, views, 2)
	for _, w := range views {
		w.close()
	}
	require.Zero(t, budget.used.Load())
}

// Goal: what nobody uses is not mapped for long; method: two views, of which one is used between two visits of the sweeper.
func TestViewsSweep(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	f, budget := openViews(t, ctx, 8*viewBytes, mappedMax)
	sweep := func() {
		done := make(chan struct{})
		ctx.Post(func() { f.views.sweep(ctx); close(done) })
		<-done
	}
	part := func(n int64) func() int64 { return func() int64 { return n } }
	ask(t, ctx, f, mapAfter, part(0))
	ask(t, ctx, f, mapAfter, part(3))
	require.Equal(t, int64(2*viewBytes), budget.used.Load())
	sweep()
	ask(t, ctx, f, 1, part(3))
	sweep()
	require.Nil(t, f.views.slots[0].view)
	require.NotNil(t, f.views.slots[3].view)
	require.NotNil(t, f.views.sweeper)
	sweep()
	require.Nil(t, f.views.sweeper, "nothing is left to look after")
	require.Eventually(t, func() bool { return budget.used.Load() == 0 }, time.Minute, time.Millisecond)
}

// Goal: stores go through the mapping where pages are stored to again before they are written back; method: one pass over
// all pages, a second one, and passes with a flush before each.
func TestWear(t *testing.T) {
	var e wear
	regions := make([]region, 2*wearTrial/512)
	pass := func() (pays bool) {
		for i := range regions {
			for page := range int64(512) {
				pays = e.store(&regions[i], page)
			}
		}
		return pays
	}
	require.False(t, pass(), "once each")
	require.True(t, pass(), "once more")
	for range 3 {
		e.cleaned()
		require.False(t, pass(), "clean again")
	}
	require.True(t, pass())
}

// Goal: the kind of file system is what the kernel's table says of the device; method: a table.
func TestMountedAs(t *testing.T) {
	const table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n" +
		"27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n" +
		"28 1 254:16 /sub /mnt rw - ext2 /dev/vdb rw\nshort - ext4\n"
	for _, c := range []struct {
		major, minor uint32
		want         string
	}{{254, 0, "ext4"}, {254, 16, "ext2"}, {0, 21, "proc"}, {8, 1, ""}} {
		require.Equal(t, c.want, mountedAs([]byte(table), c.major, c.minor))
	}
}

// Goal: a file about whose pages the kernel would not tell us the truth is not mapped; method: a thread of another user opens
// a file that it may only read, one that it may write, and one that it owns.
func TestTellsResidency(t *testing.T) {
	const nobody = 65534
	path := makeFile(t, t.TempDir(), 1<<20)
	told := make(chan bool)
	asNobody := func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine, and its user with it
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		defer unix.Close(fd)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			panic(errno)
		}
		told <- tellsResidency(fd)
	}
	for _, c := range []struct {
		name string
		uid  int
		mode os.FileMode
		want bool
	}{{"reader", 0, 0o644, false}, {"writer", 0, 0o666, true}, {"owner", nobody, 0o400, true}} {
		require.NoError(t, os.Chown(path, c.uid, 0))
		require.NoError(t, os.Chmod(path, c.mode))
		go asNobody()
		require.Equal(t, c.want, <-told, c.name)
	}
}

// Goal: what a mapped disk holds is what a flat array would, to us and to whoever else has the file open; method: random reads, writes,
// zeroes, discards and flushes around the borders of views, each compared through both.
func TestMappedRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	defer func() {
		if t.Failed() {
			fmt.Println("seed", seed)
		}
	}()
	fmt.Println("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const size = 2*viewBytes + 100<<10 + 77
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	o := Options{Path: makeFile(t, t.TempDir(), size), Discard: DiscardUnmap, ShareRW: true, Map: MapAlways}
	f := openIn(t, ctx, o)
	other, err := os.OpenFile(o.Path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer other.Close()
	model := make([]byte, f.Size())
	borders := []int64{0, viewBytes, 2 * viewBytes, size}
	for step := range 4000 {
		off := borders[random.IntN(len(borders))] + random.Int64N(128<<10) - 64<<10
		off = max(0, min(off, f.Size()-1))
		n := min(1+random.Int64N(20<<10), f.Size()-off)
		if random.IntN(2) == 0 {
			off, n = off&^4095, min(4096, f.Size()-off&^4095)
		}
		r := blockcore.Range{Offset: off, Length: n}
		require.NoError(t, ctx.Do(func(task *blockcore.Task) error {
			p := task.Buffers().Get(int(n))
			defer task.Buffers().Put(p)
			switch random.IntN(12) {
			case 0:
				clear(model[off : off+n])
				return f.WriteZeroes(task, r, blockcore.ZeroFlags(random.IntN(2))*blockcore.ZeroMayUnmap)
			case 1:
				whole := blockcore.Range{Offset: off &^ 4095, Length: 4096}
				if whole.End() > int64(len(model)) {
					return nil
				}
				clear(model[whole.Offset:whole.End()]) // what punching a hole of whole blocks leaves
				return f.Discard(task, whole)
			case 2:
				return f.Flush(task)
			case 3: // somebody else writes
				if off+n > size {
					return nil
				}
				fill(model[off:off+n], random)
				_, err := other.WriteAt(model[off:off+n], off)
				return err
			case 4, 5, 6, 7:
				fill(model[off:off+n], random)
				copy(p, model[off:off+n])
				return f.WriteAt(task, p, off, blockcore.WriteFlags(random.IntN(8)/7)*blockcore.WriteFUA)
			}
			if err := f.ReadAt(task, p, off); err != nil {
				return err
			}
			require.Equal(t, model[off:off+n], p, "step %d, %d bytes at %d", step, n, off)
			return nil
		}), "step %d", step)
		got := make([]byte, n)
		m, _ := other.ReadAt(got, off)
		require.Equal(t, model[off:off+int64(m)], got[:m], "the other opener, step %d, %d bytes at %d", step, n, off)
	}
	require.NotNil(t, f.views.slots[0].view)
	require.NotNil(t, f.views.slots[2].view)
}

func fill(p []byte, random *rand.Rand) {
	b := byte(random.Uint32())
	for i := range p {
		p[i] = b + byte(i)
	}
}

// Goal: somebody who reads the file while it is written through a mapping never sees a word go back; method: one page gets
// rising numbers, with flushes between, and a second opener reads it all the time.
func TestMappedCoherence(t *testing.T) {
	const rounds = 20_000
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), 1<<20), ShareRW: true, Map: MapAlways})
	other, err := os.Open(f.path)
	require.NoError(t, err)
	defer other.Close()
	done := make(chan error, 1)
	go func() {
		done <- ctx.Do(func(t *blockcore.Task) error {
			p := t.Buffers().Get(4096)
			defer t.Buffers().Put(p)
			for n := range uint32(rounds) {
				for at := 0; at < len(p); at += 4 {
					p[at], p[at+1], p[at+2], p[at+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
				}
				if err := f.WriteAt(t, p, 8192, 0); err != nil {
					return err
				}
				if n%4096 == 4095 {
					if err := f.Flush(t); err != nil {
						return err
					}
				}
				t.Yield()
			}
			return nil
		})
	}()
	last := make([]uint32, 1024)
	page := make([]byte, 4096)
	look := func() {
		_, err := other.ReadAt(page, 8192)
		require.NoError(t, err)
		for i := range last {
			q := page[4*i:]
			n := uint32(q[0])<<24 | uint32(q[1])<<16 | uint32(q[2])<<8 | uint32(q[3])
			require.GreaterOrEqual(t, n, last[i])
			last[i] = n
		}
	}
	for {
		look()
		select {
		case err := <-done:
			require.NoError(t, err)
			look()
			require.Equal(t, uint32(rounds-1), last[0])
			require.Equal(t, uint32(rounds-1), last[1023])
			return
		default:
		}
	}
}
