package nfstest

import (
	"math/rand/v2"
	"time"
)

const (
	pageBytes   = 4096
	sectorBytes = 512 // what a disk writes whole, or not at all, when the power goes
)

// pages is a sparse array of bytes. Pages that were never written read as zeroes and cost nothing.
type pages struct {
	sizeBytes int64
	at        map[int64]*[pageBytes]byte
}

func newPages() pages { return pages{at: map[int64]*[pageBytes]byte{}} }

// read fills into with the bytes from offset on; what is behind the end is left alone, and not counted.
func (p *pages) read(into []byte, offset int64) int {
	n := int(max(0, min(int64(len(into)), p.sizeBytes-offset)))
	for done := 0; done < n; {
		inPage := (offset + int64(done)) % pageBytes
		part := into[done:min(n, done+int(pageBytes-inPage))]
		if page := p.at[(offset+int64(done))/pageBytes]; page != nil {
			copy(part, page[inPage:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return n
}

// write stores bytes, and makes the array longer if they go beyond its end.
func (p *pages) write(from []byte, offset int64) {
	for done := 0; done < len(from); {
		number, inPage := (offset+int64(done))/pageBytes, (offset+int64(done))%pageBytes
		page := p.at[number]
		if page == nil {
			page = new([pageBytes]byte)
			p.at[number] = page
		}
		done += copy(page[inPage:], from[done:])
	}
	p.sizeBytes = max(p.sizeBytes, offset+int64(len(from)))
}

// truncate sets the length. What lies behind a new end is gone, also if the array grows again.
func (p *pages) truncate(sizeBytes int64) {
	if sizeBytes < p.sizeBytes {
		for number, page := range p.at {
			switch begin := number * pageBytes; {
			case begin >= sizeBytes:
				delete(p.at, number)
			case begin+pageBytes > sizeBytes:
				clear(page[sizeBytes-begin:])
			}
		}
	}
	p.sizeBytes = sizeBytes
}

func (p *pages) copy() pages {
	c := pages{p.sizeBytes, make(map[int64]*[pageBytes]byte, len(p.at))}
	for number, page := range p.at {
		duplicate := *page
		c.at[number] = &duplicate
	}
	return c
}

// inode is a file or a directory.
//
// INVARIANT: outside of unstable, contents and stable agree as far as both reach, and unstable lies within contents.
type inode struct {
	// Immutable.
	id    uint64
	isDir bool
	link  string // where it leads; "" = it is no symbolic link

	// Guarded by Server.mu.
	mode, uid, gid uint32
	changed        time.Time
	gone           bool // removed: its handles are stale
	export         *exported
	entries        map[string]*inode // of a directory
	exclusive      uint64            // the verifier of the CREATE that made it
	contents       pages             // what READ sees
	stable         pages             // what a crash leaves
	unstable       ranges            // what of contents stable has not got
}

// put is a WRITE, without its promise.
func (f *inode) put(data []byte, offset int64) {
	f.contents.write(data, offset)
	f.unstable = f.unstable.add(span{offset, offset + int64(len(data))})
	f.changed = time.Now()
}

// sync takes the bytes of a span to stable storage. A file that got longer gets its length with its bytes.
func (f *inode) sync(s span) {
	left, taken := f.unstable.cut(s)
	for _, part := range taken {
		f.toStable(part)
	}
	f.unstable = left
}

func (f *inode) toStable(s span) {
	data := make([]byte, s.end-s.begin)
	f.contents.read(data, s.begin)
	f.stable.write(data, s.begin)
}

// resize is the size of a SETATTR.
func (f *inode) resize(sizeBytes int64) {
	f.contents.truncate(sizeBytes)
	f.stable.truncate(sizeBytes)
	f.unstable, _ = f.unstable.cut(span{sizeBytes, 1<<63 - 1})
	f.changed = time.Now()
}

// crash leaves what is stable, and of the rest the sectors that the cache happened to have written back: none without a
// source of chance.
func (f *inode) crash(chance *rand.Rand) {
	if chance != nil {
		for _, s := range f.unstable {
			f.crashSpan(s, chance)
		}
	}
	f.contents, f.unstable = f.stable.copy(), nil
}

func (f *inode) crashSpan(s span, chance *rand.Rand) {
	for begin := s.begin; begin < s.end; {
		end := min(s.end, begin/sectorBytes*sectorBytes+sectorBytes)
		if chance.IntN(2) == 0 {
			f.toStable(span{begin, end})
		}
		begin = end
	}
}
