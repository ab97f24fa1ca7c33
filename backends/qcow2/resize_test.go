package qcow2

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// stiff is a disk that does not become shorter.
type stiff struct{ *memory }

func (s stiff) Resize(*blockcore.Task, int64) error { return syscall.EIO }

// Goal: what was cut off is never seen again, also where the file could not be cut off with it. Method: the last cluster of a disk is written, and the disk
// shrunk; a few bytes elsewhere get the same place in the file, with zeroes around them.
func TestShrinkOfAFileThatStays(t *testing.T) {
	base, err := os.ReadFile(create(t, filepath.Join(scratch(t), "image"), "1M", ""))
	require.NoError(t, err)
	s := stiff{&memory{bytes: base, random: rand.New(rand.NewPCG(1, 2)), h: &history{}}}
	r := newRig(t)
	file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "stiff", Context: r.ctx, Driver: s})
	require.NoError(t, err)
	n, err := put(r.graph, "image", file, Options{})
	require.NoError(t, err)
	r.use(n)
	secret := make([]byte, 64<<10)
	for k := range secret {
		secret[k] = 0xaa
	}
	r.write(960<<10, secret)
	require.NoError(t, r.do(func(t *blockcore.Task, _ *blockcore.Edge) error { return r.image.Resize(t, 512<<10) }))
	r.write(4096, secret[:512])
	got := r.read(0, 64<<10)
	requireSame(t, secret[:512], got[4096:4608], "what was written")
	clear(got[4096:4608])
	requireSame(t, make([]byte, 64<<10), got, "what is around it")
}

// Goal: an external data file is cut off with the disk, and nothing of what was cut off comes back. Method: a disk that is raw and one that is not are shrunk and
// grown; the data file has the size of the shrunken disk, and what is new reads as zeroes, to qemu-io too.
func TestExternalDataFollowsTheSize(t *testing.T) {
	for _, raw := range []string{"off", "on"} {
		t.Run("data_file_raw="+raw, func(t *testing.T) {
			dir := scratch(t)
			path, data := filepath.Join(dir, "image"), filepath.Join(dir, "data")
			create(t, path, "4M", "data_file="+data+",data_file_raw="+raw)
			tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 4M", path)
			r := newRig(t)
			r.use(r.add(path, Options{}, blockcore.ChildOptions{Role: blockcore.RoleData, Node: r.file(data, false)}))
			resize := func(sizeBytes int64) {
				require.NoError(t, r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
					return tx.Resize(d, n, sizeBytes)
				}))
			}
			resize(2 << 20)
			st, err := os.Stat(data)
			require.NoError(t, err)
			require.EqualValues(t, 2<<20, st.Size())
			resize(4 << 20)
			require.Equal(t, make([]byte, 2<<20), r.read(2<<20, 2<<20))
			r.close()
			checkImage(t, path)
			tool(t, "qemu-io", "-f", "qcow2", "-c", "read -P 7 0 2M", "-c", "read -P 0 2M 2M", path)
		})
	}
}

// Goal: a disk that has become much shorter has no refcount blocks left that count nothing, and it can become long again. Method: disks whose blocks count few clusters are filled, shrunk, grown and filled, with what is in them compared; qemu-img finds neither errors nor leaks.
func TestShrinkDropsRefcountBlocks(t *testing.T) {
	for _, options := range []string{"cluster_size=512,refcount_bits=64", "cluster_size=512,refcount_bits=16", "cluster_size=1k,refcount_bits=64,lazy_refcounts=on"} {
		t.Run(options, func(t *testing.T) {
			path := create(t, filepath.Join(scratch(t), "image"), "4M", options)
			r := open(t, path, Options{Unmap: true})
			blocks := func() (n int) {
				require.NoError(t, r.do(func(*blockcore.Task, *blockcore.Edge) error {
					for _, e := range r.image.refs.table {
						if e != 0 {
							n++
						}
					}
					return nil
				}))
				return n
			}
			resize := func(sizeBytes int64) {
				require.NoError(t, r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
					return tx.Resize(d, n, sizeBytes)
				}))
			}
			secret := bytes.Repeat([]byte{0xaa}, 4<<20)
			for range 3 {
				r.write(0, secret)
				full := blocks()
				resize(64 << 10)
				if !strings.Contains(options, "lazy") {
					require.Less(t, blocks(), full/4)
				}
				requireSame(t, secret[:64<<10], r.read(0, 64<<10), "what is left")
				resize(4 << 20)
				requireSame(t, make([]byte, 4<<20-64<<10), r.read(64<<10, 4<<20-64<<10), "what is new")
			}
			r.write(0, secret)
			requireSame(t, secret, r.read(0, 4<<20), "all")
			r.close()
			checkImage(t, path)
		})
	}
}

// brim is a disk on which only so many bytes have room.
type brim struct {
	*memory
	room int64 // changed when nothing is in flight
}

// WriteAt writes where there is room.
func (b *brim) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	if off+int64(len(p)) > b.room {
		return syscall.ENOSPC
	}
	return b.memory.WriteAt(t, p, off, flags)
}

// Goal: a growth for which there is no room says once that clusters are lost, however many runs of them it had allocated. Method: a table of 32768 clusters of 512
// bytes, in a file that has room for a few of the refcounts of those.
func TestGrowthWithoutRoomSaysSoOnce(t *testing.T) {
	base, err := os.ReadFile(create(t, filepath.Join(scratch(t), "image"), "1M", "cluster_size=512"))
	require.NoError(t, err)
	for _, more := range []int64{128 << 10, 512 << 10, 2 << 20} {
		b := &brim{&memory{bytes: bytes.Clone(base), random: rand.New(rand.NewPCG(1, 2)), h: &history{}}, int64(len(base)) + more}
		r := newRig(t)
		file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "brim", Context: r.ctx, Driver: b})
		require.NoError(t, err)
		var said []string
		n, err := put(r.graph, "image", file, Options{Warn: func(text string) { said = append(said, text) }})
		require.NoError(t, err)
		r.use(n)
		err = r.do(func(t *blockcore.Task, _ *blockcore.Edge) error { return r.image.Resize(t, 1<<36) })
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.LessOrEqual(t, len(said), 1, "%q", said)
		require.NoError(t, r.do(func(*blockcore.Task, *blockcore.Edge) error { b.room = 1 << 40; return nil })) // for the close
	}
}
