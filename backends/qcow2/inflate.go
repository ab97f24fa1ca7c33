package qcow2

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

const (
	// inflatedBytesMax bounds what is kept of clusters that were decompressed: a client that reads on in small steps meets the same one again.
	inflatedBytesMax = 1 << 20
	// inflatedMax bounds their number.
	inflatedMax = 16
	// inlineBytes is the largest cluster that the loop itself decompresses; for others it is worth a worker.
	inlineBytes = 4 << 10
	// zstdWindowMax bounds the memory of a decoder: four times the largest cluster.
	zstdWindowMax = 8 << 20
)

// inflater keeps clusters that were decompressed. Owned by the context.
type inflater struct {
	kept  map[uint64]*inflated // by descriptor
	order []uint64             // the oldest first
}

// inflated is a cluster that was decompressed, or is about to be.
type inflated struct {
	bytes   []byte // on the Go heap: no I/O is done with it
	loading bool
	loaded  blockcore.WaitQueue
	err     error
}

// readCompressed fills p from a compressed cluster.
func (i *Image) readCompressed(t *blockcore.Task, p []byte, off format.Guest, e format.L2Entry) error {
	for {
		c, err := i.inflated(t, e)
		if err == nil {
			copy(p, c.bytes[i.g.GuestInCluster(off):])
		}
		if err == nil || c == nil || !errors.Is(err, blockcore.ErrCancelled) {
			return err
		}
	}
}

// inflated returns a cluster that is decompressed. c is nil where an error is our own, and not of whom we have waited for.
func (i *Image) inflated(t *blockcore.Task, e format.L2Entry) (c *inflated, err error) {
	c = i.inflate.kept[e.Descriptor]
	if c == nil {
		c = &inflated{loading: true}
		i.inflate.keep(e.Descriptor, c, i.g.ClusterBytes())
		c.bytes, c.err = i.loadCompressed(t, e)
		c.loading = false
		c.loaded.WakeAll()
		if c.err != nil {
			i.inflate.forget(e.Descriptor, c)
			return nil, c.err
		}
	}
	for c.loading {
		t.Wait(&c.loaded)
	}
	return c, c.err
}

func (f *inflater) keep(descriptor uint64, c *inflated, clusterBytes int64) {
	if f.kept == nil {
		f.kept = map[uint64]*inflated{}
	}
	if most := int(min(max(inflatedBytesMax/clusterBytes, 1), inflatedMax)); len(f.order) >= most {
		delete(f.kept, f.order[0])
		f.order = f.order[1:]
	}
	f.kept[descriptor] = c
	f.order = append(f.order, descriptor)
}

// forget drops a cluster: c, or whatever is kept if c is nil. Those who wait for it get it all the same.
func (f *inflater) forget(descriptor uint64, c *inflated) {
	if have := f.kept[descriptor]; have == nil || c != nil && have != c {
		return
	}
	delete(f.kept, descriptor)
	for k, d := range f.order {
		if d == descriptor {
			f.order = append(f.order[:k:k], f.order[k+1:]...)
			return
		}
	}
}

// loadCompressed reads and decompresses a cluster.
func (i *Image) loadCompressed(t *blockcore.Task, e format.L2Entry) ([]byte, error) {
	at, n := i.g.CompressedRange(e)
	packed := t.Buffers().Get(int(n))
	defer t.Buffers().Put(packed)
	if err := readHost(t, i.file.Load(), packed, at); err != nil {
		return nil, err
	}
	cluster := make([]byte, i.g.ClusterBytes())
	unpack := unpackZlib
	if i.header.Compression == format.CompressionZstd {
		unpack = unpackZstd
	}
	work := func() error { return unpack(cluster, packed) }
	var err error
	if len(cluster) <= inlineBytes {
		err = work()
	} else {
		err = t.Block(work)
	}
	if err != nil {
		return nil, fmt.Errorf("qcow2: decompress cluster at %#x: %w: %w", at, err, errCorrupt)
	}
	return cluster, nil
}

// zlibReaders and zstdReaders keep decoders, whose tables are worth keeping.
var (
	zlibReaders = sync.Pool{New: func() any { return flate.NewReader(nil) }}
	zstdReaders = sync.Pool{New: func() any {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindowMax))
		if err != nil {
			return err
		}
		return d
	}}
)

// unpackZlib decompresses raw deflate data. What is behind the end of the cluster is none of ours.
func unpackZlib(cluster, packed []byte) error {
	r := zlibReaders.Get().(io.ReadCloser)
	defer zlibReaders.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(packed), nil); err != nil {
		return err
	}
	_, err := io.ReadFull(r, cluster)
	return err
}

func unpackZstd(cluster, packed []byte) error {
	r := zstdReaders.Get()
	d, ok := r.(*zstd.Decoder)
	if !ok {
		return r.(error)
	}
	defer zstdReaders.Put(d)
	if err := d.Reset(bytes.NewReader(packed)); err != nil {
		return err
	}
	_, err := io.ReadFull(d, cluster)
	return err
}
