package nfs

import (
	"fmt"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// Bounds of what is written again at once, each with its reason.
const (
	// replaysMax leaves room in the table of calls for everybody else.
	replaysMax = 64
	// replayBytesMax bounds the copies that are made for it.
	replayBytesMax = 4 << 20
)

// replay writes again what the server may have lost, many ranges at once.
func (f *File) replay(t *blockcore.Task, how wire.Stable) error {
	runs := f.held.staleRuns(int64(f.writeMax))
	for len(runs) > 0 {
		n, bytes := 0, int64(0)
		for n < len(runs) && n < replaysMax && (n == 0 || bytes+runs[n].Length <= replayBytesMax) {
			bytes += runs[n].Length
			n++
		}
		if err := f.replayRuns(t, runs[:n], bytes, how); err != nil {
			return fmt.Errorf("write again what the server has lost: %w", err)
		}
		runs = runs[n:]
	}
	return nil
}

// replayRuns writes some ranges again, and has all from the first to the last for itself meanwhile, so that nothing newer is written over. One lock for
// each would not do: who waits for two of them would come between, and wait for the first and be waited for with the second.
func (f *File) replayRuns(t *blockcore.Task, runs []blockcore.Range, bytes int64, how wire.Stable) error {
	first := runs[0].Offset
	lock, err := f.hold(t, blockcore.Range{Offset: first, Length: runs[len(runs)-1].End() - first})
	if err != nil {
		return err
	}
	buf := t.Buffers().Get(int(bytes))
	g := f.calls.takeGroup(t)
	g.lock = lock
	rest := buf
	var sent []int64 // pages by their index: one that comes to stable storage meanwhile is given up, and may be another one by now
	for _, r := range runs {
		sent = f.replayRun(t, g, r, rest[:r.Length], how, sent)
		rest = rest[r.Length:]
	}
	err = f.await(t, g)
	if err == nil {
		f.replayed(t, g, sent)
	}
	t.Buffers().Put(buf)
	if !g.handed {
		f.locks.Release(lock)
	}
	f.calls.giveGroup(g)
	return err
}

// replayRun sends what of a range is stale still: runs of bytes that are held, across pages.
func (f *File) replayRun(t *blockcore.Task, g *group, r blockcore.Range, buf []byte, how wire.Stable, sent []int64) []int64 {
	var from, to int64 = -1, -1
	send := func() {
		if from >= 0 && g.err == nil {
			f.submit(t, g, wire.ProcWrite, buf[from-r.Offset:to-r.Offset], from, how)
		}
	}
	for off := r.Offset; off < r.End(); off += pageBytes {
		p := f.held.pages.at(off / pageBytes)
		if p == nil || !p.stale {
			continue
		}
		sent = append(sent, p.index)
		copy(buf[off-r.Offset:], p.data)
		p.each(0, pageBytes, func(begin, end int) {
			if off+int64(begin) != to {
				send()
				from = off + int64(begin)
			}
			to = off + int64(end)
		})
	}
	send()
	return sent
}

// replayed notes that a server has the pages again. A READ that was under way meanwhile may have seen the file without them.
func (f *File) replayed(t *blockcore.Task, g *group, pages []int64) {
	f.held.gone++
	for _, index := range pages {
		p := f.held.pages.at(index)
		switch {
		case p == nil: // on stable storage
		case !g.unstable:
			f.held.remove(t.Buffers(), p)
		case !g.mixed:
			p.verifier = g.verifier
			f.held.setStale(p, false)
		}
	}
}
