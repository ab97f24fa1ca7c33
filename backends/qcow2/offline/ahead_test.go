package offline

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
)

// How long a test waits for reads to come, and how often it looks.
const (
	testMax = time.Minute
	tick    = time.Millisecond
)

// slowFile is a file in memory whose reads may be held up, and fail.
type slowFile struct {
	mu     sync.Mutex
	data   []byte
	atOnce atomic.Int32
	most   atomic.Int32
	gate   chan struct{} // nil = reads are not held up
	fails  func(at int64) error
}

func (f *slowFile) ReadAt(p []byte, at int64) (int, error) {
	n := f.atOnce.Add(1)
	defer f.atOnce.Add(-1)
	for most := f.most.Load(); n > most && !f.most.CompareAndSwap(most, n); most = f.most.Load() {
	}
	if f.gate != nil {
		<-f.gate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails != nil {
		if err := f.fails(at); err != nil {
			return 0, err
		}
	}
	if at >= int64(len(f.data)) {
		return 0, io.EOF
	}
	done := copy(p, f.data[at:])
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

func (f *slowFile) WriteAt(p []byte, at int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(at + int64(len(p)))
	return copy(f.data[at:], p), nil
}

func (f *slowFile) grow(to int64) {
	if more := to - int64(len(f.data)); more > 0 {
		f.data = append(f.data, make([]byte, more)...)
	}
}

func (f *slowFile) Truncate(to int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(to)
	f.data = f.data[:to]
	return nil
}

func (f *slowFile) Size() (int64, error) { return int64(len(f.data)), nil }
func (f *slowFile) Sync() error          { return nil }

// Goal: what is expected is read some pieces at once, and no more than that, and a long read in pieces too. Method: a file whose reads are held up until as many
// have come as may.
func TestAheadAtOnce(t *testing.T) {
	const piece = 4096
	f := &slowFile{data: make([]byte, 64*piece), gate: make(chan struct{})}
	rand.NewChaCha8([32]byte{1}).Read(f.data)
	a := NewAhead(f)
	a.Expect(func(yield func(Part) bool) {
		for at := int64(0); at < 64*piece && yield(Part{at, piece}); at += piece {
		}
	})
	require.Eventually(t, func() bool { return f.most.Load() == aheadPieces }, testMax, tick)
	close(f.gate)
	p := make([]byte, piece)
	for at := int64(0); at < 64*piece; at += piece {
		_, err := a.ReadAt(p, at)
		require.NoError(t, err)
		require.Equal(t, f.data[at:at+piece], p)
	}
	a.Wait()
	require.LessOrEqual(t, f.most.Load(), int32(aheadPieces+1))

	f = &slowFile{data: make([]byte, 20*aheadPieceBytes), gate: make(chan struct{})}
	rand.NewChaCha8([32]byte{2}).Read(f.data)
	a = NewAhead(f)
	done := make(chan []byte)
	go func() {
		p := make([]byte, len(f.data)+5)
		_, _ = a.ReadAt(p, 0)
		done <- p[:len(f.data)]
	}()
	require.Eventually(t, func() bool { return f.most.Load() >= aheadBytes/aheadPieceBytes }, testMax, tick)
	close(f.gate)
	require.True(t, bytes.Equal(f.data, <-done))
	a.Wait()
}

// Goal: reads give what is in the file, whatever was expected, written, cut off or failed meanwhile. Method: random calls beside a copy of the file; reads that
// were begun ahead fail at random, and are repeated.
func TestAheadIsTheFile(t *testing.T) {
	const seed, blocks, block = 7, 64, 1024
	r := rand.New(rand.NewPCG(seed, 0))
	f := &slowFile{data: make([]byte, blocks*block)}
	var failures atomic.Int64
	f.fails = func(int64) error { // every other time: whoever repeats it succeeds
		if failures.Add(1)%7 == 3 {
			return syscall.EIO
		}
		return nil
	}
	a, model := NewAhead(f), make([]byte, blocks*block)
	for range 4000 {
		at := r.Int64N(blocks) * block
		switch r.IntN(8) {
		case 0:
			parts := make([]Part, r.IntN(40))
			for i := range parts {
				parts[i] = Part{r.Int64N(blocks+4) * block, block}
			}
			a.Expect(slices.Values(parts))
		case 1, 2:
			p := bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(3*block))
			p = p[:min(int64(len(p)), blocks*block-at)]
			_, err := a.WriteAt(p, at)
			require.NoError(t, err)
			copy(model[at:], p)
		case 3:
			require.NoError(t, a.Truncate(at+100))
			require.NoError(t, a.Truncate(blocks*block))
			clear(model[at+100:])
		default:
			p := make([]byte, block)
			err := readAt(a, p, at)
			if err != nil {
				require.ErrorIs(t, err, syscall.EIO)
				continue
			}
			require.True(t, bytes.Equal(model[at:at+block], p), "seed %d: at %d", seed, at)
		}
	}
	a.Wait()
	require.Zero(t, f.atOnce.Load())
}

// Goal: a check says the same with its reads ahead, and finds refcount blocks in memory that it has seen. Method: an image whose clusters lie in another order than
// on its disk, checked and repaired both ways; the reads are counted.
func TestCheckReadsAhead(t *testing.T) {
	f := &slowFile{}
	require.NoError(t, Create(f, nil, CreateOptions{SizeBytes: 4 << 20, ClusterBytes: 512, Preallocation: PreallocationMetadata}, nil))
	im, err := Open(f, format.ForUse)
	require.NoError(t, err)
	scatter(t, im)
	plain := checked(t, &slowFile{data: slices.Clone(f.data)})
	var reads atomic.Int64
	f.fails = func(int64) error { reads.Add(1); return nil }
	a := NewAhead(f)
	require.Equal(t, plain, checked(t, a))
	a.Wait()
	tables := int64(len(im.l1)+len(im.refTable)) / 8
	require.LessOrEqual(t, reads.Load(), 3*2*tables+50, "there are three walks over %d tables, each of which reads each twice at most", tables)
}

// scatter has the guest's clusters lie in another order.
func scatter(t *testing.T, im *Image) {
	t.Helper()
	var entries []format.L2Entry
	each := func(fn func(table []byte, i int)) {
		for part := range im.l2Tables(im.l1) {
			table := make([]byte, part.Length)
			require.NoError(t, readAt(im.file, table, part.At))
			for i := range im.g.L2Entries() {
				fn(table, i)
			}
			_, err := im.file.WriteAt(table, part.At)
			require.NoError(t, err)
		}
	}
	each(func(table []byte, i int) { entries = append(entries, im.g.L2Entry(table, i)) })
	rand.New(rand.NewPCG(3, 0)).Shuffle(len(entries), func(i, k int) { entries[i], entries[k] = entries[k], entries[i] })
	each(func(table []byte, i int) {
		im.g.SetL2Entry(table, i, entries[0])
		entries = entries[1:]
	})
}

// checked is what a check says at last, when it has repaired three leaks that were made first.
func checked(t *testing.T, f File) Report {
	t.Helper()
	im, err := Open(f, format.ForCheck)
	require.NoError(t, err)
	_, err = im.allocate(3) // which nobody refers to
	require.NoError(t, err)
	require.NoError(t, im.coverFile())
	require.NoError(t, im.flush())
	report, err := im.Check(CheckOptions{Repair: RepairAll})
	require.NoError(t, err)
	require.Equal(t, int64(3), report.LeaksFixed)
	report, err = im.Check(CheckOptions{})
	require.NoError(t, err)
	require.True(t, report.Clean())
	return report
}
