// Package null is a Driver without storage: reads give zeroes, whatever was written, and everything
// succeeds. It is for tests and for measuring what is above it.
//
// It starts no goroutines and has no locks.
package null

import (
	"time"

	"nbd-dataplane/blockcore"
)

// SizeDefault is the size of a null disk when none is given, QEMU's: 1 GiB.
const SizeDefault = 1 << 30

// Options configure a null disk. The zero value is a good choice.
type Options struct {
	// SizeBytes is the length of the disk, rounded up to 512; 0 takes SizeDefault.
	SizeBytes int64
	// ReadZeroes promises that the disk reads as zeroes: its map then says so. It always does.
	ReadZeroes bool
	// LatencyNS is how long each request takes, in nanoseconds.
	LatencyNS int64
}

// Disk is a null disk. It has no state, so any number of contexts may use it at once.
//
// Analogous to QEMU's null-co driver.
type Disk struct {
	// Immutable.
	sizeBytes int64
	latency   time.Duration
	status    blockcore.ExtentStatus
}

// Open returns a null disk.
func Open(o Options) *Disk {
	d := &Disk{sizeBytes: o.SizeBytes, latency: time.Duration(o.LatencyNS)}
	if d.sizeBytes == 0 {
		d.sizeBytes = SizeDefault
	}
	d.sizeBytes = (d.sizeBytes + sectorBytes - 1) &^ (sectorBytes - 1)
	if o.ReadZeroes {
		d.status = blockcore.ExtentHole | blockcore.ExtentZero
	}
	return d
}

// sectorBytes is the unit of sizes.
const sectorBytes = 512

// The abilities of a Disk.
var (
	_ blockcore.Driver    = (*Disk)(nil)
	_ blockcore.Writer    = (*Disk)(nil)
	_ blockcore.Flusher   = (*Disk)(nil)
	_ blockcore.Forgetful = (*Disk)(nil)
	_ blockcore.Zeroer    = (*Disk)(nil)
	_ blockcore.Discarder = (*Disk)(nil)
	_ blockcore.Mapper    = (*Disk)(nil)
	_ blockcore.Limiter   = (*Disk)(nil)
	_ blockcore.Featurer  = (*Disk)(nil)
)

// Size returns the length. Safe from anywhere.
func (d *Disk) Size() int64 { return d.sizeBytes }

// Limits returns that anything goes. Safe from anywhere.
func (d *Disk) Limits() blockcore.Limits { return blockcore.Limits{Align: 1, Preferred: 4096} }

// Features returns that zeroing is fast. Safe from anywhere.
func (d *Disk) Features() blockcore.Features { return blockcore.Features{FastZero: true} }

// ReadAt fills p with zeroes. QEMU leaves p as it is unless read-zeroes is set, which in a server would show
// one client what another one wrote.
func (d *Disk) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	d.wait(t)
	clear(p)
	return nil
}

// WriteAt forgets p.
func (d *Disk) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	d.wait(t)
	return nil
}

// Flush has nothing to do.
func (d *Disk) Flush(t *blockcore.Task) error {
	d.wait(t)
	return nil
}

// Forgets is true.
func (d *Disk) Forgets() bool { return true }

// WriteZeroes has nothing to do.
func (d *Disk) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	d.wait(t)
	return nil
}

// Discard has nothing to do.
func (d *Disk) Discard(t *blockcore.Task, r blockcore.Range) error {
	d.wait(t)
	return nil
}

// BlockStatus calls the whole range zeroes if that was promised, or else data.
func (d *Disk) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	return append(exts, blockcore.Extent{Length: r.Length, Status: d.status, Depth: 1}), nil
}

// Close has nothing to do.
func (d *Disk) Close(t *blockcore.Task) error { return nil }

func (d *Disk) wait(t *blockcore.Task) {
	if d.latency > 0 {
		t.Sleep(d.latency)
	}
}

// UsedBytes returns that the disk takes up no space. On the loop.
func (d *Disk) UsedBytes(*blockcore.Task) (usedBytes int64, ok bool) { return 0, true }
