package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// writeCompressed writes the whole clusters of a range compressed, all in one request if atOnce is set. Where something is there already, and at the ends, it writes
// as usual.
func writeCompressed(t *blockcore.Task, e *blockcore.Edge, p []byte, off int64, atOnce bool) error {
	unit, size := e.Node().CompressedUnit(), e.Node().Size()
	for len(p) > 0 {
		n, whole := int64(len(p)), false
		switch {
		case unit == 0:
		case off%unit != 0:
			n = min(n, unit-off%unit)
		default:
			if !atOnce || n < unit {
				n = min(n, unit)
			} else if off+n != size {
				n -= n % unit
			}
			whole = n%unit == 0 || off+n == size
		}
		err := errThere
		if whole {
			err = e.Write(t, p[:n], off, blockcore.WriteCompressed)
		}
		if errors.Is(err, errThere) {
			err = e.Write(t, p[:n], off, 0)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// compressed writes compressed, and returns the error.
func (r *rig) compressed(off int64, data []byte) error {
	return r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(len(data))
		defer t.Buffers().Put(p)
		copy(p, data)
		return e.Write(t, p, off, blockcore.WriteCompressed)
	})
}

// text is data that becomes smaller by half or so.
func text(random *rand.Rand, n int64) []byte {
	p := make([]byte, n)
	for k := range p {
		p[k] = "abcdefghijkl"[random.IntN(12)]
	}
	return p
}

// Goal: a disk that is written compressed is read by us, by QEMU and by a third reader, is free of errors and leaks, and as small as QEMU makes it or nearly so;
// method: every size of clusters, every width of refcounts, both types of compression, a disk that ends within a cluster; compared with what qemu-img convert -c makes of the same.
func TestCompressedWrites(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, clusterBytes := range []int64{512, 1024, 4096, 65536, 1 << 20, 2 << 20} {
		for _, options := range []string{
			"refcount_bits=1", "refcount_bits=2", "refcount_bits=4", "refcount_bits=8", "", "refcount_bits=32", "refcount_bits=64,compression_type=zstd",
			"compression_type=zstd", "extended_l2=on", "extended_l2=on,compression_type=zstd", "compat=0.10", "lazy_refcounts=on",
		} {
			if clusterBytes < 16<<10 && strings.Contains(options, "extended") || clusterBytes > 64<<10 && strings.Contains(options, "bits") {
				continue
			}
			options := strings.TrimPrefix(fmt.Sprintf("%s,cluster_size=%d", options, clusterBytes), ",")
			t.Run(strings.ReplaceAll(options, ",", " "), func(t *testing.T) {
				size := max(min(clusterBytes*40, 2<<20), clusterBytes*4) + 512
				dir := scratch(t)
				path, theirs := filepath.Join(dir, "image"), filepath.Join(dir, "theirs")
				create(t, path, fmt.Sprint(size), options)
				disk := text(random, size)
				copy(disk[clusterBytes*2:clusterBytes*3], make([]byte, clusterBytes))
				for k := range disk[:clusterBytes] { // it stays as long as it is
					disk[k] = byte(random.Uint32())
				}
				r := open(t, path, Options{})
				require.NoError(t, r.compressed(clusterBytes, disk[clusterBytes:]))
				require.NoError(t, r.compressed(0, disk[:clusterBytes]))
				requireSame(t, disk, r.contents(), "ours")
				r.close()
				checkImage(t, path)
				requireSame(t, disk, flat(t, path, "-f", "qcow2"), "QEMU's")
				requireSame(t, disk, secondOpinion(t, path), "go-qcow2reader's")
				tool(t, "qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", "-o", options, path, theirs)
				ours, others := fileBytes(t, path), fileBytes(t, theirs)
				require.LessOrEqual(t, ours, others*5/4+3*clusterBytes+4096)
			})
		}
	}
}

// Goal: T-I7, a compressed write: ENOTSUP where it cannot be, ENOSPC outside of the disk, whole clusters only, nothing that is allocated is replaced, as in QEMU, but by
// data that is not compressed after all; method: each of these.
func TestCompressedWriteErrors_T_I7(t *testing.T) {
	dir := scratch(t)
	path := create(t, filepath.Join(dir, "image"), "1M", "")
	r := open(t, path, Options{})
	same := bytes.Repeat([]byte{7}, 64<<10)
	require.ErrorIs(t, r.compressed(512, same), syscall.EINVAL)
	require.ErrorIs(t, r.compressed(0, same[512:]), syscall.EINVAL)
	require.ErrorIs(t, r.compressed(-2, same), syscall.ENOSPC)
	require.ErrorIs(t, r.compressed(1<<20-512, same), syscall.ENOSPC)
	require.NoError(t, r.compressed(0, same))
	require.ErrorIs(t, r.compressed(0, same), syscall.EIO)
	r.write(64<<10, same)
	require.ErrorIs(t, r.compressed(64<<10, same), syscall.EIO)
	noise := make([]byte, 64<<10)
	for k := range noise {
		noise[k] = byte(rand.Uint32())
	}
	require.NoError(t, r.compressed(64<<10, noise))
	require.Equal(t, noise, r.read(64<<10, 64<<10))
	require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		return e.WriteZeroes(t, blockcore.Range{Length: 128 << 10}, blockcore.ZeroMayUnmap)
	}))
	require.NoError(t, r.compressed(0, same))
	r.close()
	checkImage(t, path)

	other := create(t, filepath.Join(dir, "other"), "1M", "data_file="+filepath.Join(dir, "data"))
	r = newRig(t)
	r.use(r.add(other, Options{}, blockcore.ChildOptions{Role: blockcore.RoleData, Node: r.file(filepath.Join(dir, "data"), false)}))
	require.ErrorIs(t, r.compressed(0, same), syscall.ENOTSUP)
}

// Goal: compressed data never goes behind other data in a cluster that was given up meanwhile, where QEMU 7.2 ends with a corrupt image; and what was decompressed is not
// taken for what is at the same place later. Method: compress, discard, flush, allocate, compress, over and over, with discards that are passed on.
func TestCompressedWritesAfterDiscards(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := create(t, filepath.Join(scratch(t), "image"), "1M", "cluster_size=4k")
	r := open(t, path, Options{Unmap: true})
	model := make([]byte, 1<<20)
	flush := func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) }
	unmap := func(at blockcore.Range) {
		require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error { return e.WriteZeroes(t, at, blockcore.ZeroMayUnmap) }))
		clear(model[at.Offset:at.End()])
		if random.IntN(4) > 0 {
			require.NoError(t, r.do(flush))
		}
	}
	for round := range 100 {
		unmap(blockcore.Range{Length: 1 << 20}) // nothing is left that could keep a cluster of compressed data in use
		for k := range random.Int64N(12) + 3 {
			at := blockcore.Range{Offset: k << 16, Length: 4096 * (1 + random.Int64N(4))}
			data := bytes.Repeat([]byte{byte(round)}, int(at.Length)) // of one length when it is compressed, so that descriptors come again
			if random.IntN(2) == 0 {
				require.NoError(t, r.compressed(at.Offset, data))
			} else {
				r.write(at.Offset, data)
			}
			copy(model[at.Offset:], data)
			if random.IntN(3) == 0 {
				unmap(at)
			}
		}
		requireSame(t, model, r.contents(), "ours")
	}
	r.close()
	checkImage(t, path)
	requireSame(t, model, flat(t, path, "-f", "qcow2"), "QEMU's")
}

// fileBytes is how long a file is.
func fileBytes(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	return st.Size()
}
