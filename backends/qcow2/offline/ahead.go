package offline

import (
	"errors"
	"io"
	"iter"
	"sync"
)

// Bounds of what is read ahead. A piece is what one call to a server may bring; so many of them at once hide the way there and back, and
// keep no more memory than a few clusters.
const (
	aheadPieceBytes = 256 << 10
	aheadPieces     = 16
	aheadBytes      = 4 << 20
)

// Part is a part of a file.
type Part struct{ At, Length int64 }

// expecter is a File that wants to know what will be read next.
type expecter interface {
	Expect(parts iter.Seq[Part])
}

// expect says which parts of the file will be read from now on, in that order and as a whole; some may be left out. parts is asked bit by bit, between reads.
func (im *Image) expect(parts iter.Seq[Part]) {
	if f, can := im.file.(expecter); can {
		f.Expect(parts)
	}
}

// Ahead is a File that reads what it was told to expect before it is asked, some pieces at once, and long reads in as many. It is for files
// that take long to answer, and answer many at once. Reads of the file below come from several goroutines, all else from the one that
// uses the Ahead.
type Ahead struct {
	File

	// Used by one goroutine.
	begun []*piece // in the order of the reads
	next  func() (Part, bool)
	stop  func()
	rest  Part  // of the last part, what no piece was begun for
	bytes int64 // that the pieces keep

	reading sync.WaitGroup
}

// piece is a read that was begun ahead. What it has read is valid when done is closed.
type piece struct {
	at   int64
	data []byte
	n    int
	err  error
	done chan struct{}
}

// NewAhead reads a file ahead, which may be read by several goroutines at once.
func NewAhead(f File) *Ahead { return &Ahead{File: f} }

// Expect takes the place of what was expected before.
func (a *Ahead) Expect(parts iter.Seq[Part]) {
	a.forget()
	a.next, a.stop = iter.Pull(parts)
	a.begin()
}

// Wait ends the reading ahead, and returns when nothing below is read any more.
func (a *Ahead) Wait() {
	a.forget()
	a.reading.Wait()
}

func (a *Ahead) forget() {
	if a.stop != nil {
		a.stop()
	}
	a.begun, a.next, a.stop, a.rest, a.bytes = nil, nil, nil, Part{}, 0
}

// begin begins as many reads as there may be.
func (a *Ahead) begin() {
	for len(a.begun) < aheadPieces && (a.bytes < aheadBytes || len(a.begun) == 0) {
		for a.rest.Length <= 0 {
			var more bool
			if a.next == nil {
				return
			}
			if a.rest, more = a.next(); !more {
				a.stop()
				a.next, a.stop = nil, nil
				return
			}
		}
		p := &piece{at: a.rest.At, data: make([]byte, min(a.rest.Length, aheadPieceBytes)), done: make(chan struct{})}
		a.rest.At, a.rest.Length = a.rest.At+int64(len(p.data)), a.rest.Length-int64(len(p.data))
		a.begun = append(a.begun, p)
		a.bytes += int64(len(p.data))
		a.reading.Add(1)
		go a.read(p)
	}
}

// read is a goroutine that reads one piece. Wait waits for it.
func (a *Ahead) read(p *piece) {
	defer a.reading.Done()
	p.n, p.err = a.File.ReadAt(p.data, p.at)
	close(p.done)
}

// ReadAt takes what was read ahead. What was expected before it and has not been asked for is dropped.
func (a *Ahead) ReadAt(p []byte, at int64) (n int, err error) {
	if len(p) > aheadPieceBytes && !a.has(at) {
		a.Expect(func(yield func(Part) bool) { yield(Part{at, int64(len(p))}) })
	}
	for n < len(p) && err == nil {
		var more int
		more, err = a.readPiece(p[n:min(n+aheadPieceBytes, len(p))], at+int64(n))
		n += more
	}
	return n, err
}

func (a *Ahead) has(at int64) bool {
	for _, p := range a.begun {
		if p.at == at {
			return true
		}
	}
	return false
}

func (a *Ahead) readPiece(to []byte, at int64) (int, error) {
	for i, p := range a.begun {
		if p.at != at || len(p.data) != len(to) {
			continue
		}
		for _, used := range a.begun[:i+1] {
			a.bytes -= int64(len(used.data))
		}
		a.begun = a.begun[i+1:]
		a.begin()
		<-p.done
		if p.err != nil && !errors.Is(p.err, io.EOF) {
			break // once more, by itself: what went wrong may have been another's
		}
		return copy(to, p.data[:p.n]), p.err
	}
	return a.File.ReadAt(to, at)
}

// WriteAt writes; what was read ahead there is not valid any more.
func (a *Ahead) WriteAt(p []byte, at int64) (int, error) {
	a.drop(at, at+int64(len(p)))
	return a.File.WriteAt(p, at)
}

// Truncate changes the length of the file, and with it what is read behind the shorter one.
func (a *Ahead) Truncate(sizeBytes int64) error {
	a.forget()
	return a.File.Truncate(sizeBytes)
}

// drop forgets what was begun between two offsets, whether it has come or not.
func (a *Ahead) drop(from, to int64) {
	left := a.begun[:0]
	for _, p := range a.begun {
		if p.at < to && from < p.at+int64(len(p.data)) {
			a.bytes -= int64(len(p.data))
			continue
		}
		left = append(left, p)
	}
	a.begun = left
}
