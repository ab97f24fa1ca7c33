package raw

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/internal/check"
	"nbd-dataplane/internal/imagelock"
)

// Goal: a request costs the garbage collector nothing, by whichever way it is done; method: count the allocations of the
// process over many requests of each kind.
func TestHotPathAllocatesNothing(t *testing.T) {
	const requests = 2000
	allowed := requests / 10 // the runtime's own
	if check.Enabled {
		allowed += 2 * requests // the arguments of assertions
	}
	ctx := blocktest.NewContext(t, blockcore.EngineURing)
	path := makeFile(t, t.TempDir(), 1<<20)
	cached := openIn(t, ctx, Options{Path: path, Locking: imagelock.Off})
	direct := openIn(t, ctx, Options{Path: path, Locking: imagelock.Off, Cache: Cache{Direct: true}})
	byRing := openIn(t, ctx, Options{Path: path, Locking: imagelock.Off})
	byRing.lacks.readNow.Store(true)
	mapped := openIn(t, ctx, Options{Path: path, Locking: imagelock.Off, Map: MapAlways})
	detecting := openIn(t, ctx, Options{Path: path, Locking: imagelock.Off, DetectZeroes: DetectOn})
	for _, c := range []struct {
		name string
		do   func(t *blockcore.Task, p []byte) error
	}{
		{"write inline", func(t *blockcore.Task, p []byte) error { return cached.WriteAt(t, p, 8192, 0) }},
		{"read inline", func(t *blockcore.Task, p []byte) error { return cached.ReadAt(t, p, 8192) }},
		{"read by the ring", func(t *blockcore.Task, p []byte) error { return byRing.ReadAt(t, p, 8192) }},
		{"write direct", func(t *blockcore.Task, p []byte) error { return direct.WriteAt(t, p, 8192, 0) }},
		{"read direct", func(t *blockcore.Task, p []byte) error { return direct.ReadAt(t, p, 8192) }},
		{"write mapped", func(t *blockcore.Task, p []byte) error { return mapped.WriteAt(t, p, 8192, 0) }},
		{"read mapped", func(t *blockcore.Task, p []byte) error { return mapped.ReadAt(t, p, 8192) }},
		{"write detecting", func(t *blockcore.Task, p []byte) error { return detecting.WriteAt(t, p, 8192, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
				p := t.Buffers().Get(4096)
				defer t.Buffers().Put(p)
				p[4095] = 1
				for i := range 2 * requests {
					if i == requests {
						runtime.ReadMemStats(&before)
					}
					if err := c.do(t, p); err != nil {
						return err
					}
				}
				runtime.ReadMemStats(&after)
				return nil
			}))
			require.Less(t, after.Mallocs-before.Mallocs, uint64(allowed))
		})
	}
}

// Goal: the figures of docs/decisions/0003-buffered-writes.md; method: 4 KiB requests at depth 1 and 32, inline and by
// each engine, on a disk's file system and on tmpfs.
func BenchmarkBuffered(b *testing.B) {
	for _, place := range []struct{ name, dir string }{{"disk", "/var/tmp"}, {"tmpfs", "/dev/shm"}} {
		for _, way := range []string{"inline", "io_uring", "threads"} {
			for _, depth := range []int{1, 32} {
				for _, write := range []bool{true, false} {
					op := "read"
					if write {
						op = "write"
					}
					b.Run(fmt.Sprintf("%s/%s/%s/depth=%d", place.name, op, way, depth), func(b *testing.B) {
						benchmarkBuffered(b, place.dir, way, depth, write)
					})
				}
			}
		}
	}
}

const benchBytes = 64 << 20

func benchmarkBuffered(b *testing.B, dir, way string, depth int, write bool) {
	kind := blockcore.EngineURing
	if way == "threads" {
		kind = blockcore.EngineThreads
	}
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "bench", Engine: kind})
	require.NoError(b, err)
	defer ctx.Close()
	path := benchFile(b, dir)
	f, err := Open(Options{Path: path})
	require.NoError(b, err)
	defer func() { require.NoError(b, ctx.Do(f.Close)) }()
	done := make(chan error, depth)
	var cpu [2]unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &cpu[0])
	b.ResetTimer()
	ctx.Post(func() {
		for i := range depth {
			ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
				done <- benchTask(t, f, way, b.N/depth+1, uint64(i), write)
			}))
		}
	})
	for range depth {
		require.NoError(b, <-done)
	}
	b.StopTimer()
	unix.Getrusage(unix.RUSAGE_SELF, &cpu[1])
	spent := cpu[1].Utime.Nano() + cpu[1].Stime.Nano() - cpu[0].Utime.Nano() - cpu[0].Stime.Nano()
	b.ReportMetric(float64(spent)/float64(b.N), "cpu-ns/op")
}

// benchTask makes n requests at places spread over the file.
func benchTask(t *blockcore.Task, f *File, way string, n int, at uint64, write bool) error {
	p := t.Buffers().Get(4096)
	defer t.Buffers().Put(p)
	k := kernel{}
	for range n {
		at = at*6364136223846793005 + 1442695040888963407
		off := int64(at>>40) % (benchBytes / 4096) * 4096
		var err error
		switch {
		case way == "inline" && write:
			_, err = k.writeNow(f.fd, p, off, 0)
			t.Yield()
		case way == "inline":
			_, err = k.readNow(f.fd, p, off, 0)
			t.Yield()
		case write:
			_, err = k.write(t, f.fd, p, off, 0)
		default:
			_, err = k.read(t, f.fd, p, off)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// benchFile makes a file whose blocks are all in the page cache.
func benchFile(b *testing.B, dir string) string {
	b.Helper()
	f, err := os.CreateTemp(dir, "bench")
	require.NoError(b, err)
	b.Cleanup(func() { os.Remove(f.Name()) })
	_, err = f.Write(make([]byte, benchBytes))
	require.NoError(b, err)
	require.NoError(b, f.Close())
	return f.Name()
}
