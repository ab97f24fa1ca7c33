package membuf

import (
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"nbd-dataplane/internal/check"
)

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// resident counts the pages of b that are in memory.
func resident(t require.TestingT, b []byte) int {
	vec := make([]byte, (len(b)+int(kernelPage)-1)/int(kernelPage))
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, address(b), uintptr(len(b)), uintptr(unsafe.Pointer(&vec[0])))
	require.Zero(t, errno)
	n := 0
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

func TestGetSizes(t *testing.T) {
	// Every size gets its length, an aligned address and the capacity of its class: a table of the
	// edges, from the Pool and from a Cache.
	const mib = 1 << 20
	table := []struct{ n, capacity int }{
		{1, 4096}, {4096, 4096}, {4097, 8192}, {8192, 8192}, {65536 + 28, 128 << 10},
		{256 << 10, 256 << 10}, {256<<10 + 1, 512 << 10}, {mib, mib}, {mib + 1, 2 * mib},
		{32 * mib, 32 * mib}, {64 * mib, 64 * mib}, {64*mib + 1, 128 * mib}, {128 * mib, 128 * mib},
		{128*mib + 1, 128*mib + 4096}, {130 * mib, 130 * mib},
	}
	p := NewPool(0)
	c := p.NewCache()
	for _, row := range table {
		for _, from := range []interface {
			Get(int) []byte
			Put([]byte)
		}{p, c} {
			b := from.Get(row.n)
			require.Len(t, b, row.n)
			require.Equal(t, row.capacity, cap(b), "size %d", row.n)
			require.Zero(t, address(b)%pageBytes)
			b[0], b[row.n-1] = 1, 2
			from.Put(b[:row.n/2])
		}
	}
	require.Nil(t, p.Get(0))
	require.Nil(t, c.Get(0))
	p.Put(nil)
	c.Put(nil)
	c.Drain()
	require.NoError(t, p.Close())
	require.Equal(t, int64(0), p.Stats().Mapped)
}

func TestLastBackIsFirstOut(t *testing.T) {
	// What came back last has the warmest pages and goes out first: Pool and Cache are asked again
	// after three returns.
	p := NewPool(1 << 20)
	c := p.NewCache()
	for _, n := range []int{4096, 512 << 10} {
		for _, from := range []interface {
			Get(int) []byte
			Put([]byte)
		}{p, c} {
			x, y := from.Get(n), from.Get(n)
			from.Put(x)
			from.Put(y)
			z := from.Get(n)
			require.Equal(t, address(y), address(z))
			from.Put(z)
		}
	}
	c.Drain()
	require.NoError(t, p.Close())
}

func TestIdleMemoryGoesBack(t *testing.T) {
	// At most cachedMax stays resident: 16 MiB of touched buffers of several sizes are put into a pool
	// that keeps one, and the kernel is asked (mincore) what is still there.
	const keep = 1 << 20
	p := NewPool(keep)
	slabs := func() (pages int) {
		for c := range slabClasses {
			for _, list := range [][]unsafe.Pointer{p.free[c].warm, p.free[c].cold} {
				for _, addr := range list {
					pages += resident(t, unsafe.Slice((*byte)(addr), classBytes(c)))
				}
			}
		}
		return pages
	}
	for _, n := range []int{4096, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		var bufs [][]byte
		for range (16 << 20) / n {
			b := p.Get(n)
			poison(b, 1)
			bufs = append(bufs, b)
		}
		require.GreaterOrEqual(t, p.Stats().InUse, int64(16<<20))
		for _, b := range bufs {
			p.Put(b)
			require.LessOrEqual(t, p.Stats().Cached, int64(keep))
		}
		require.LessOrEqual(t, slabs()*int(kernelPage), keep)
	}
	s := p.Stats()
	require.Zero(t, s.InUse)
	require.NotZero(t, s.Trims)
	// Large buffers leave no address space behind, slabs do: 16 MiB for each of three classes.
	require.LessOrEqual(t, s.Mapped, int64(3*16<<20+keep))
	require.NoError(t, p.Close())
}

func TestTrimSparesTheCurrentSize(t *testing.T) {
	// A pool full of small buffers makes room for the large size that is used now: after one round of a
	// 512 KiB buffer the next gets the same memory without mmap.
	p := NewPool(2 << 20)
	var small [][]byte
	for range (2 << 20) / 4096 {
		small = append(small, p.Get(4096))
	}
	for _, b := range small {
		p.Put(b)
	}
	p.Put(p.Get(512 << 10))
	maps := p.Stats().Maps
	for range 100 {
		p.Put(p.Get(512 << 10))
	}
	require.Equal(t, maps, p.Stats().Maps)
	require.NoError(t, p.Close())
}

func TestOwns(t *testing.T) {
	// Owns tells memory of the pool from all other memory: buffers and their ends, the Go heap, a
	// global, another pool, a mapping that was given back.
	p, q := NewPool(0), NewPool(0)
	require.False(t, p.Owns(make([]byte, 10)))
	require.True(t, p.Owns(nil))
	b := p.Get(1 << 20)
	small := p.Get(100)
	require.True(t, p.Owns(b))
	require.True(t, p.Owns(small))
	require.True(t, p.Owns(b[len(b)-1:]))
	require.True(t, p.OwnsRange(address(b), len(b)))
	require.False(t, q.Owns(b))
	for _, foreign := range [][]byte{make([]byte, 10), make([]byte, 10<<20), global[:]} {
		require.False(t, p.Owns(foreign))
	}
	// Past the end of all mappings, with a length that would wrap an address.
	spans := *p.spans.Load()
	last := spans[len(spans)-1]
	require.False(t, p.OwnsRange(last.end-4096, 4097))
	require.False(t, p.OwnsRange(last.end-1, int(^uint(0)>>1)))
	addr := address(b)
	p.Put(b)
	require.False(t, p.OwnsRange(addr, 1), "the pool keeps nothing, the mapping is gone")
	p.Put(small)
	require.NoError(t, p.Close())
}

var global [64]byte

func TestCloseRefusesBuffersThatAreOut(t *testing.T) {
	// Close is the leak check of a pool: it names what is out, and what a Cache keeps is out.
	p := NewPool(1 << 20)
	c := p.NewCache()
	b := c.Get(4096)
	require.ErrorContains(t, p.Close(), "still out")
	c.Put(b)
	require.ErrorContains(t, p.Close(), "still out")
	c.Drain()
	require.NoError(t, p.Close())
}

func TestCacheIsBounded(t *testing.T) {
	// A Cache never keeps more than its bound of a class, whatever is put into it: buffers of the Pool of each
	// class are put into the Cache.
	p := NewPool(1 << 30)
	c := p.NewCache()
	for i := range classes - 4 {
		var bufs [][]byte
		for range 3*cacheClassBytes/classBytes(i) + 3 {
			bufs = append(bufs, p.Get(classBytes(i)))
		}
		for _, b := range bufs {
			c.Put(b)
		}
	}
	for i, kept := range c.kept {
		require.LessOrEqual(t, len(kept)*classBytes(i), max(cacheClassBytes, classBytes(i)))
	}
	require.LessOrEqual(t, p.Stats().InUse, int64(6<<20))
	c.Drain()
	require.NoError(t, p.Close())
}

func TestNoHeapAllocation(t *testing.T) {
	// The hot path allocates nothing on the Go heap: measured for small and large sizes, and for a pool that trims.
	if check.Enabled {
		return // the ledger of a check build is a map
	}
	for _, keep := range []int64{16 << 20, 256 << 10} {
		p := NewPool(keep)
		c := p.NewCache()
		sizes := []int{4096, 64 << 10, 256 << 10}
		if keep == 16<<20 {
			sizes = append(sizes, 1<<20, 4<<20)
		}
		var bufs [8][]byte
		for _, n := range sizes {
			for name, from := range map[string]interface {
				Get(int) []byte
				Put([]byte)
			}{"pool": p, "cache": c} {
				round := func() {
					for i := range bufs[:2] {
						bufs[i] = from.Get(n)
					}
					for _, b := range bufs[:2] {
						from.Put(b)
					}
				}
				round()
				require.Zero(t, testing.AllocsPerRun(100, round), "%s, %d bytes", name, n)
			}
		}
		c.Drain()
		require.NoError(t, p.Close())
	}
}

func TestPoolModel(t *testing.T) {
	// Buffers that are out never overlap, keep their contents, and are counted right, whatever the order of
	// gets, puts and drains through a Pool and two Caches: random sequences against a list of live buffers.
	rapid.Check(t, func(t *rapid.T) {
		p := NewPool(rapid.SampledFrom([]int64{0, 64 << 10, 1 << 20, 1 << 30}).Draw(t, "cachedMax"))
		caches := []*Cache{p.NewCache(), p.NewCache()}
		front := []interface {
			Get(int) []byte
			Put([]byte)
		}{p, caches[0], caches[1]}
		var live [][]byte
		tag := byte(0)
		t.Repeat(map[string]func(*rapid.T){
			"get": func(t *rapid.T) {
				bits := rapid.IntRange(0, 22).Draw(t, "bits")
				n := rapid.IntRange(1, 1<<bits).Draw(t, "n")
				b := rapid.SampledFrom(front).Draw(t, "front").Get(n)
				tag++
				poison(b[:min(n, 64)], tag)
				b[n-1] = tag
				live = append(live, b)
			},
			"put": func(t *rapid.T) {
				if len(live) == 0 {
					return
				}
				i := rapid.IntRange(0, len(live)-1).Draw(t, "which")
				b := live[i]
				require.Equal(t, b[0], b[len(b)-1])
				live[i] = live[len(live)-1]
				live = live[:len(live)-1]
				rapid.SampledFrom(front).Draw(t, "front").Put(b[:1])
			},
			"drain": func(t *rapid.T) { rapid.SampledFrom(caches).Draw(t, "cache").Drain() },
			"": func(t *rapid.T) {
				s := p.Stats()
				require.LessOrEqual(t, s.Cached, p.cachedMax)
				require.LessOrEqual(t, s.InUse+s.Cached, s.Mapped)
				require.GreaterOrEqual(t, s.Buffers, int64(len(live)))
				for _, b := range live {
					require.True(t, p.Owns(b[:cap(b)]))
					require.Equal(t, b[0], b[len(b)-1])
				}
			},
		})
		for _, b := range live {
			p.Put(b)
		}
		caches[0].Drain()
		caches[1].Drain()
		s := p.Stats()
		require.Zero(t, s.InUse)
		require.Zero(t, s.Buffers)
		require.NoError(t, p.Close())
	})
}

func TestManyGoroutines(t *testing.T) {
	// One Pool serves many goroutines: four with a Cache each pass buffers to one another, tag them and
	// look at the tags, in a pool small enough to trim all the time.
	p := NewPool(128 << 10)
	hand := make(chan []byte, 64)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			c := p.NewCache()
			defer c.Drain()
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 2000 {
				b := c.Get(1 + r.IntN(1<<(10+r.IntN(11))))
				b[0] = byte(len(b))
				_ = p.Owns(b)
				select {
				case hand <- b:
				case other := <-hand:
					if other[0] != byte(len(other)) {
						t.Errorf("a buffer of %d bytes has tag %d", len(other), other[0])
					}
					c.Put(other)
					p.Put(b)
				}
			}
		})
	}
	wg.Wait()
	close(hand)
	for b := range hand {
		p.Put(b)
	}
	require.NoError(t, p.Close())
}

func TestForeignCapacityPanics(t *testing.T) {
	// Memory no pool can have made is refused in every build: a slice whose start was moved has lost
	// the capacity of its class.
	p := NewPool(0)
	b := p.Get(8192)
	require.Panics(t, func() { p.Put(b[1:]) })
	require.Panics(t, func() { p.NewCache().Put(b[512:]) })
	require.Panics(t, func() { p.Put(make([]byte, 100)) })
	p.Put(b)
	require.NoError(t, p.Close())
}
