package sim

import (
	"bytes"

	"nbd-dataplane/blockcore"
)

// sectorBytes is what a crash leaves in one piece of a file.
const sectorBytes = 512

// file is the simulated file below an image: see the fault model in doc.go. Its length is stable at once.
type file struct {
	layer
	hardware

	// Owned by the context.
	now      []byte
	stable   []byte                // what a crash leaves at least; as long as now
	volatile map[int][]sectorWrite // since then, by sector
	seq      int
}

// sectorWrite is what a sector held after a write.
type sectorWrite struct {
	seq  int
	data []byte
}

// newFile has a file hold some bytes.
func (w *world) newFile(name string, contents []byte) *file {
	f := &file{hardware: newHardware(w.stream(name)), now: contents, stable: bytes.Clone(contents), volatile: map[int][]sectorWrite{}}
	f.layer.init(w, name, f)
	return f
}

// Size changes by Extend and Resize.
func (f *file) Size() int64 { return int64(len(f.now)) }

// enter is that of layer, but for what an image does while the control plane flushes, resizes or closes it.
func (f *file) enter(what string) func() {
	if f.w.attending() {
		return f.enterDrained(what)
	}
	return f.layer.enter(what)
}

// pieces calls fn for the parts of a request in each sector, in two pieces at different times.
func (f *file) pieces(t *blockcore.Task, off, length int64, fn func(from, to int64)) error {
	if off+length > f.Size() {
		f.w.Fail("file %s: request [%#x, +%#x) of %#x", f.name, off, length, f.Size())
		return errInjected
	}
	middle := off + f.rng.Int64N(length+1)
	for from := off; from < off+length; {
		to := min((from/sectorBytes+1)*sectorBytes, off+length)
		if from == off || from <= middle && middle < to {
			if err := f.work(t); err != nil {
				return err
			}
		}
		fn(from, to)
		from = to
	}
	return f.work(t)
}

// ReadAt implements blockcore.Driver.
func (f *file) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	defer f.enter("read")()
	return f.pieces(t, off, int64(len(p)), func(from, to int64) { copy(p[from-off:to-off], f.now[from:to]) })
}

// WriteAt implements blockcore.Writer.
func (f *file) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	defer f.enter("write")()
	err := f.pieces(t, off, int64(len(p)), func(from, to int64) {
		copy(f.now[from:to], p[from-off:to-off])
		f.note(int(from / sectorBytes))
	})
	if err == nil && flags&blockcore.WriteFUA != 0 {
		return f.sync(t)
	}
	return err
}

// note takes down what a sector holds now.
func (f *file) note(sector int) {
	f.seq++
	at := sector * sectorBytes
	f.volatile[sector] = append(f.volatile[sector], sectorWrite{f.seq, bytes.Clone(f.now[at:min(at+sectorBytes, len(f.now))])})
}

// Flush implements blockcore.Flusher.
func (f *file) Flush(t *blockcore.Task) error {
	defer f.enter("flush")()
	return f.sync(t)
}

func (f *file) sync(t *blockcore.Task) error {
	since := f.seq
	if err := f.work(t); err != nil {
		return err
	}
	for sector, list := range f.volatile {
		for len(list) > 0 && list[0].seq <= since {
			copy(f.stable[min(sector*sectorBytes, len(f.stable)):], list[0].data)
			list = list[1:]
		}
		f.volatile[sector] = list
	}
	return f.work(t)
}

// Extend implements blockcore.Extender.
func (f *file) Extend(t *blockcore.Task, toBytes int64) error {
	defer f.enter("extend")()
	if err := f.work(t); err != nil {
		return err
	}
	if toBytes > f.Size() {
		f.setSize(int(toBytes))
	}
	return nil
}

// Resize implements blockcore.Resizer.
func (f *file) Resize(t *blockcore.Task, sizeBytes int64) error {
	defer f.enter("resize")()
	if err := f.work(t); err != nil {
		return err
	}
	f.setSize(int(sizeBytes))
	return nil
}

func (f *file) setSize(n int) {
	for sector, list := range f.volatile {
		at := sector * sectorBytes
		for k := range list {
			list[k].data = resized(list[k].data, max(min(n-at, sectorBytes), 0))
		}
	}
	f.now, f.stable = resized(f.now, n), resized(f.stable, n)
}

// crashed is what may be left of the file now.
func (f *file) crashed() []byte {
	p := bytes.Clone(f.stable)
	for sector := range (len(p) + sectorBytes - 1) / sectorBytes {
		list := f.volatile[sector]
		if n := f.rng.IntN(len(list) + 1); n > 0 {
			copy(p[sector*sectorBytes:], list[n-1].data)
		}
	}
	return p
}
