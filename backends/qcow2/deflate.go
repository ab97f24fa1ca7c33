package qcow2

import (
	"errors"
	"sync"

	kpflate "github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"nbd-dataplane/backends/qcow2/format"
)

// deflateWindowBytes is how far back deflate data may refer: QEMU's readers keep no more.
const deflateWindowBytes = 4 << 10

// zlibWriters and zstdWriters keep encoders, whose tables are worth keeping.
var (
	zlibWriters = sync.Pool{New: func() any {
		w, err := kpflate.NewWriterWindow(nil, deflateWindowBytes)
		if err != nil {
			return err
		}
		return w
	}}
	zstdWriters = sync.Pool{New: func() any {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(format.ClusterBytesMax),
			zstd.WithEncoderCRC(false), zstd.WithAllLitEntropyCompression(true))
		if err != nil {
			return err
		}
		return w
	}}
)

// errFull: the data does not become as small as it is to be.
var errFull = errors.New("no room")

// bounded is a writer into a slice that becomes no longer.
type bounded struct {
	p []byte
	n int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > len(b.p)-b.n {
		return 0, errFull
	}
	b.n += copy(b.p[b.n:], p)
	return len(p), nil
}

// packZlib fills packed with the deflate data of a cluster and returns how much that is; 0 = it is longer.
func packZlib(packed, cluster []byte) (int, error) {
	v := zlibWriters.Get()
	w, ok := v.(*kpflate.Writer)
	if !ok {
		return 0, v.(error)
	}
	defer zlibWriters.Put(w)
	out := bounded{p: packed}
	w.Reset(&out)
	defer w.Reset(nil) // the pool keeps no buffers
	_, err := w.Write(cluster)
	if err == nil {
		err = w.Close()
	}
	if errors.Is(err, errFull) {
		return 0, nil
	}
	return out.n, err
}

// packZstd does the same with zstd.
func packZstd(packed, cluster []byte) (int, error) {
	v := zstdWriters.Get()
	w, ok := v.(*zstd.Encoder)
	if !ok {
		return 0, v.(error)
	}
	defer zstdWriters.Put(w)
	out := w.EncodeAll(cluster, packed[:0]) // which goes elsewhere if it is longer
	if len(out) > len(packed) {
		return 0, nil
	}
	return copy(packed, out), nil
}
