package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// ReadAt fills p from offset off.
func (i *Image) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	if err := i.usable(); err != nil {
		return err
	}
	return i.read(t, p, format.Guest(off))
}

// read fills p with what the guest sees; behind the end of the disk that is zeroes.
func (i *Image) read(t *blockcore.Task, p []byte, off format.Guest) error {
	epoch := i.grace.enter()
	defer i.grace.exit(epoch)
	m, err := i.lookup(t, off, int64(len(p)))
	if err != nil {
		return err
	}
	if m.length == int64(len(p)) {
		return i.readOne(t, p, off, m)
	}
	return i.readMany(t, p, off, m)
}

// part is a run of a request that goes to one place.
type part struct {
	m   mapping
	off format.Guest
	p   []byte
}

// readMany reads what is in several places, from all of them at once.
func (i *Image) readMany(t *blockcore.Task, p []byte, off format.Guest, m mapping) error {
	var parts []part
	for {
		if m.kind == format.ZeroPlain || m.kind == format.ZeroAlloc {
			clear(p[:m.length])
		} else {
			parts = append(parts, part{m: m, off: off, p: p[:m.length]})
		}
		p, off = p[m.length:], off+format.Guest(m.length)
		if len(p) == 0 {
			break
		}
		var err error
		if m, err = i.lookup(t, off, int64(len(p))); err != nil {
			return err
		}
	}
	return parallel(t, len(parts), func(t *blockcore.Task, k int) error {
		return i.readOne(t, parts[k].p, parts[k].off, parts[k].m)
	})
}

func (i *Image) readOne(t *blockcore.Task, p []byte, off format.Guest, m mapping) error {
	switch m.kind {
	case format.Normal:
		return readHost(t, i.datas(), p, m.host)
	case format.Compressed:
		return i.readCompressed(t, p, off, m.entry)
	case format.Unallocated, format.UnallocatedAlloc:
		return i.readBacking(t, p, off)
	}
	clear(p)
	return nil
}

// backingEnd is where the backing image ends, as far as the disk shows it.
func (i *Image) backingEnd() format.Guest {
	e := i.backing.Load()
	if e == nil {
		return 0
	}
	return format.Guest(min(e.Node().Size(), i.Size()))
}

// readBacking reads what the image does not have.
func (i *Image) readBacking(t *blockcore.Task, p []byte, off format.Guest) error {
	there := min(max(int64(i.backingEnd()-off), 0), int64(len(p)))
	clear(p[there:])
	if there == 0 {
		return nil
	}
	return i.backing.Load().Read(t, p[:there], int64(off))
}

// readsZero reports whether a range is known to read as zeroes, without a look at the backing image.
func (i *Image) readsZero(t *blockcore.Task, off format.Guest, lengthBytes int64) (bool, error) {
	for lengthBytes > 0 {
		m, err := i.lookup(t, off, lengthBytes)
		if err != nil {
			return false, err
		}
		switch m.kind {
		case format.ZeroPlain, format.ZeroAlloc:
		case format.Unallocated, format.UnallocatedAlloc:
			if off < i.backingEnd() {
				return false, nil
			}
		default:
			return false, nil
		}
		off, lengthBytes = off+format.Guest(m.length), lengthBytes-m.length
	}
	return true, nil
}
