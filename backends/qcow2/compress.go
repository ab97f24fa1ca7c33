package qcow2

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// packersMax bounds how many clusters of an image are compressed and stored at once: each takes a buffer of a cluster or two, and an encoder.
const packersMax = 4

// errThere is what a compressed write to a cluster gets that has a place in the file already. QEMU refuses the same.
var errThere = fmt.Errorf("qcow2: compressed data cannot replace a cluster that is allocated: %w", syscall.EIO)

// packer compresses clusters, and puts them one behind the other: several share a cluster of the file, whose refcount counts them.
type packer struct {
	// Owned by the context.
	busy    int // clusters that are compressed and stored now
	waiting blockcore.WaitQueue
	placing single // finds a place
	// next is behind the last compressed data, in a cluster that is in use and not full; 0 = there is none.
	//
	// INVARIANT: next leads into a cluster whose refcount is not zero, and of which nothing is being given up that is past its time of grace. So nobody comes
	// to share a cluster that is free, has become something else or is being discarded.
	next format.Host
}

// enter waits until there is room for one more cluster.
func (k *packer) enter(t *blockcore.Task) {
	for k.busy == packersMax {
		t.Wait(&k.waiting)
	}
	k.busy++
}

func (k *packer) leave() {
	k.busy--
	k.waiting.WakeOne()
}

// forget has compressed data go elsewhere if it would come into clusters of which something is given up.
func (k *packer) forget(g format.Geometry, first, count int64) {
	if c := g.Index(k.next); k.next != 0 && c >= first && c < first+count {
		k.next = 0
	}
}

// CompressedUnit is the size of a cluster; 0 = data in a file of its own is not compressed. Safe from anywhere.
func (i *Image) CompressedUnit() int64 {
	if i.external {
		return 0
	}
	return i.g.ClusterBytes()
}

// writeCompressed stores whole clusters compressed, those that become smaller by it.
func (i *Image) writeCompressed(t *blockcore.Task, p []byte, off format.Guest, flags blockcore.WriteFlags) error {
	clusterBytes, end := i.g.ClusterBytes(), int64(off)+int64(len(p))
	switch {
	case i.external:
		return syscall.ENOTSUP
	case i.g.GuestInCluster(off) != 0, end&(clusterBytes-1) != 0 && end != i.Size():
		return syscall.EINVAL
	}
	return parallel(t, int(i.g.Clusters(int64(len(p)))), func(t *blockcore.Task, k int) error {
		at := int64(k) << i.g.ClusterBits
		return i.writePacked(t, p[at:min(at+clusterBytes, int64(len(p)))], off+format.Guest(at), flags)
	})
}

// writePacked compresses one cluster, and writes it as it is if that does not make it smaller. The last one of the disk is filled up with zeroes.
func (i *Image) writePacked(t *blockcore.Task, p []byte, off format.Guest, flags blockcore.WriteFlags) error {
	i.pack.enter(t)
	defer i.pack.leave()
	clusterBytes := int(i.g.ClusterBytes())
	packed := t.Buffers().Get(clusterBytes)
	defer t.Buffers().Put(packed)
	cluster := p
	if len(p) < clusterBytes {
		cluster = t.Buffers().Get(clusterBytes)
		defer t.Buffers().Put(cluster)
		clear(cluster[copy(cluster, p):])
	}
	pack := packZlib
	if i.header.Compression == format.CompressionZstd {
		pack = packZstd
	}
	n := 0
	err := t.Block(func() (err error) {
		n, err = pack(packed[:clusterBytes-1], cluster)
		return err
	})
	if err != nil {
		return fmt.Errorf("qcow2: compress a cluster: %w: %w", err, syscall.EIO)
	}
	if n > 0 {
		if stored, err := i.storePacked(t, packed[:n], off); stored || err != nil {
			return err
		}
	}
	return i.writeRange(t, p, off, flags)
}

// storePacked writes a compressed cluster, and has its L2 entry refer to it. stored = false: no entry can lead so far into the file.
func (i *Image) storePacked(t *blockcore.Task, p []byte, off format.Guest) (stored bool, err error) {
	lock := i.changes.Acquire(t, i.clustersOf(off, 1), true)
	defer i.changes.Release(lock)
	old, err := i.entry(t, off)
	if err != nil {
		return false, err
	}
	if old.Compressed() || old.Offset() != 0 {
		return false, errThere
	}
	if err := i.prepare(t, off, 1); err != nil {
		return false, err
	}
	at, err := i.placePacked(t, int64(len(p)))
	if err != nil {
		return false, err
	}
	e, ok := i.g.CompressedEntry(at, int64(len(p)))
	if ok {
		if err = i.putPacked(t, p, at); err == nil {
			err = i.linkPacked(t, off, e)
		}
	}
	if !ok || err != nil {
		first := i.g.Index(at)
		i.release(t, run{host: i.g.Cluster(first), count: i.g.Index(at+format.Host(len(p)-1)) - first + 1})
	}
	return ok && err == nil, err
}

// putPacked writes compressed data. The file is made of whole clusters.
func (i *Image) putPacked(t *blockcore.Task, p []byte, at format.Host) error {
	end := i.g.Cluster(i.g.Clusters(int64(at) + int64(len(p))))
	if int64(end) > i.file.Load().Node().Size() {
		if err := i.reachHost(t, end); err != nil {
			return err
		}
	}
	return i.writeData(t, p, at, 0)
}

// linkPacked has the L2 entry of a cluster refer to its compressed data.
func (i *Image) linkPacked(t *blockcore.Task, off format.Guest, e format.L2Entry) error {
	if err := i.writable(); err != nil {
		return err
	}
	at, err := i.place(t, off)
	if err != nil {
		return err
	}
	piece, err := i.l2.get(t, at.piece)
	if err != nil {
		return err
	}
	i.setEntry(t, piece, at, e)
	i.unordered = true
	i.inflate.forget(e.Descriptor, nil) // who has read what was there before may have kept it
	return nil
}

// placePacked finds a place for so many bytes, less than a cluster, and counts what they lie in as used by them. They go behind the last ones, and into the next
// cluster if that is free.
//
//	| cluster in use   | new cluster      |
//	| others    |#####################|   |
//	            next                  next from then on
func (i *Image) placePacked(t *blockcore.Task, n int64) (format.Host, error) {
	i.pack.placing.enter(t)
	defer i.pack.placing.leave()
	at := i.pack.next
	fits := at != 0 && i.g.InCluster(at)+n <= i.g.ClusterBytes()
	if fits {
		shared, err := i.share(t, at)
		if err != nil {
			return 0, err
		}
		if shared {
			return i.packedBehind(at, n), nil
		}
	}
	r, err := i.allocate(t, 1, "compressed cluster")
	if err != nil {
		return 0, err
	}
	if at != 0 && !fits && i.g.Index(r.host) == i.g.Index(at)+1 {
		shared, err := i.share(t, at)
		if err != nil {
			i.release(t, r)
			return 0, err
		}
		if shared {
			return i.packedBehind(at, n), nil
		}
	}
	return i.packedBehind(r.host, n), nil
}

// packedBehind has the next data go behind the n bytes at at.
func (i *Image) packedBehind(at format.Host, n int64) format.Host {
	if i.pack.next = at + format.Host(n); i.g.InCluster(i.pack.next) == 0 {
		i.pack.next = 0
	}
	return at
}

// share counts one more user of the cluster that compressed data at at would come into. shared = false: its refcount can be no higher, or it was given up.
func (i *Image) share(t *blockcore.Task, at format.Host) (shared bool, err error) {
	index, entry := i.blockOf(i.g.Index(at))
	block, err := i.refBlock(t, index)
	if block == nil || err != nil || i.pack.next != at {
		return false, err
	}
	n := i.g.Refcount(block.bytes, entry)
	if n == 0 || n == i.g.RefcountMax() {
		return false, nil
	}
	i.refs.blocks.change(t, block)
	i.g.SetRefcount(block.bytes, entry, n+1)
	return true, nil
}
