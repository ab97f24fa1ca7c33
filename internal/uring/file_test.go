package uring

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestFileOperations(t *testing.T) {
	// The operations on files do what their system calls do: write with RWF_DSYNC, fsync, hole punching, and errors as errnos.
	everywhere(t, Params{Entries: 8}, func(t *testing.T, h *host) {
		fd := tempFile(t, t.TempDir(), 0)
		mem := h.pool.Get(8192)
		defer h.pool.Put(mem)
		copy(mem, bytes.Repeat([]byte{5}, len(mem)))
		h.next(t, 1).Write(fd, address(mem), 8192, 4096, unix.RWF_DSYNC)
		require.Equal(t, int32(8192), h.collect(t, 1)[1].Res)
		h.next(t, 2).Fsync(fd, true)
		h.next(t, 3).Fsync(fd, false)
		h.next(t, 4).Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 4096)
		for id, c := range h.collect(t, 3) {
			require.Zero(t, c.Res, "operation %d", id)
		}
		h.next(t, 5).Read(fd, address(mem), 8192, 4096, 0)
		require.Equal(t, int32(8192), h.collect(t, 1)[5].Res)
		require.Equal(t, append(bytes.Repeat([]byte{5}, 4096), make([]byte, 4096)...), mem)
		h.next(t, 6).Read(fd, address(mem), 8192, 100<<20, 0)
		h.next(t, 7).Write(fd, address(mem), 1, 0, 1<<30)
		h.next(t, 8).Read(-1, address(mem), 1, 0, 0)
		got := h.collect(t, 3)
		require.Zero(t, got[6].Res, "at the end of the file there is nothing")
		require.Equal(t, unix.EOPNOTSUPP, got[7].errno())
		require.Equal(t, unix.EBADF, got[8].errno())
	})
}

func TestSameAsPread(t *testing.T) {
	// The ring reads and writes what pread and pwrite would: random batches of reads and disjoint writes, plain and vectored,
	// against a copy in memory and against pread.
	const size = 1 << 20
	for name, refused := range kernels {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, Params{Entries: 16}, refused)
			fd := tempFile(t, t.TempDir(), size)
			model := make([]byte, size)
			rapid.Check(t, func(rt *rapid.T) {
				h.RawWait = rapid.Bool().Draw(rt, "raw")
				batch(rt, h, fd, model)
				got := make([]byte, size)
				n, err := unix.Pread(fd, got, 0)
				require.NoError(rt, err)
				require.True(rt, bytes.Equal(model, got[:n]))
			})
		})
	}
}

// batch does up to 16 operations at once in 16 disjoint areas of the file.
func batch(t *rapid.T, h *host, fd int, model []byte) {
	n := rapid.IntRange(1, 16).Draw(t, "n")
	seed := rapid.Uint64().Draw(t, "seed")
	r := rand.New(rand.NewPCG(seed, 0))
	area := len(model) / 16
	type operation struct {
		mem       []byte
		off, size int
		read      bool
	}
	ops := make([]operation, n)
	for i := range ops {
		size := 1 + r.IntN(area)
		o := operation{mem: h.pool.Get(area + 4096), size: size, off: i*area + r.IntN(area-size+1), read: r.IntN(2) == 0}
		data := o.mem[:size]
		if !o.read {
			for j := 0; j < size; j += 1 + r.IntN(64) {
				model[o.off+j] = byte(r.Uint32())
			}
			copy(data, model[o.off:])
		}
		ops[i] = o
		s := h.next(t, uint64(i))
		if vectored := r.IntN(2) == 0; !vectored && o.read {
			s.Read(fd, address(data), uint32(size), uint64(o.off), 0)
		} else if !vectored {
			s.Write(fd, address(data), uint32(size), uint64(o.off), 0)
		} else {
			iov := unsafe.Slice((*unix.Iovec)(unsafe.Pointer(&o.mem[area])), 2)
			cut := r.IntN(size)
			iov[0] = unix.Iovec{Base: &data[0], Len: uint64(cut)}
			iov[1] = unix.Iovec{Base: &data[cut], Len: uint64(size - cut)}
			if o.read {
				s.Readv(fd, address(o.mem[area:]), 2, uint64(o.off), 0)
			} else {
				s.Writev(fd, address(o.mem[area:]), 2, uint64(o.off), 0)
			}
		}
	}
	for id, c := range h.collect(t, n) {
		o := ops[id]
		require.Equal(t, int32(o.size), c.Res)
		if o.read {
			require.True(t, bytes.Equal(model[o.off:o.off+o.size], o.mem[:o.size]), "read of %d bytes at %d", o.size, o.off)
		}
		h.pool.Put(o.mem)
	}
}
