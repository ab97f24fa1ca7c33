package repair

import (
	"io"
	"sync"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/blockcore"
)

// edgeFile is an offline.File behind an Edge. It is used by a goroutine that is not on the loop.
type edgeFile struct {
	// Immutable.
	onLoop func(fn func(t *blockcore.Task) error) error
	edge   *blockcore.Edge
}

// NewFile returns a File behind an Edge, for a goroutine that is not on the loop. onLoop runs a function there, as a Task.
func NewFile(edge *blockcore.Edge, onLoop func(fn func(t *blockcore.Task) error) error) offline.File {
	return &edgeFile{onLoop: onLoop, edge: edge}
}

const (
	// pieceBytes bounds the buffer of one read or write.
	pieceBytes = 256 << 10
	// piecesMax is how many pieces are written at once.
	piecesMax = 16
)

// Size is the length of the file.
func (f *edgeFile) Size() (int64, error) { return f.edge.Node().Size(), nil }

// ReadAt reads what there is, and returns io.EOF with less than was asked for.
func (f *edgeFile) ReadAt(p []byte, at int64) (n int, err error) {
	there := min(max(f.edge.Node().Size()-at, 0), int64(len(p)))
	err = f.inPieces(there, func(t *blockcore.Task, buf []byte, done int64) error {
		if err := f.edge.Read(t, buf, at+done); err != nil {
			return err
		}
		n += copy(p[done:], buf)
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt writes, behind the end too. Where it fails, what is behind the n bytes may be written in part.
func (f *edgeFile) WriteAt(p []byte, at int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.onLoop(func(t *blockcore.Task) error { return f.edge.Extend(t, at+int64(len(p))) }); err != nil {
		return 0, err
	}
	for n < len(p) && err == nil {
		var more int
		more, err = f.writePieces(p[n:min(n+piecesMax*pieceBytes, len(p))], at+int64(n))
		n += more
	}
	return n, err
}

// writePieces writes up to piecesMax pieces at once, for a file that takes long to answer and answers many at once. It returns how much is written in front of
// the first error.
func (f *edgeFile) writePieces(p []byte, at int64) (n int, err error) {
	var failed [piecesMax]error
	var writing sync.WaitGroup
	for i := 1; i*pieceBytes < len(p); i++ {
		writing.Go(func() { failed[i] = f.writePiece(p, at, i) })
	}
	failed[0] = f.writePiece(p, at, 0)
	writing.Wait()
	for i, err := range failed {
		if err != nil {
			return i * pieceBytes, err
		}
	}
	return len(p), nil
}

func (f *edgeFile) writePiece(p []byte, at int64, i int) error {
	from := i * pieceBytes
	piece := p[from:min(from+pieceBytes, len(p))]
	return f.onLoop(func(t *blockcore.Task) error {
		buf := t.Buffers().Get(len(piece))
		defer t.Buffers().Put(buf)
		copy(buf, piece)
		return f.edge.Write(t, buf, at+int64(from), 0)
	})
}

// inPieces calls fn on the loop for one part of a length after the other, with a buffer of its size.
func (f *edgeFile) inPieces(lengthBytes int64, fn func(t *blockcore.Task, buf []byte, done int64) error) error {
	for done := int64(0); done < lengthBytes; done += pieceBytes {
		err := f.onLoop(func(t *blockcore.Task) error {
			buf := t.Buffers().Get(int(min(pieceBytes, lengthBytes-done)))
			defer t.Buffers().Put(buf)
			return fn(t, buf, done)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Truncate makes the file as long.
func (f *edgeFile) Truncate(sizeBytes int64) error {
	return f.onLoop(func(t *blockcore.Task) error {
		if sizeBytes >= f.edge.Node().Size() {
			return f.edge.Extend(t, sizeBytes)
		}
		return f.edge.Resize(t, sizeBytes)
	})
}

// Sync has all that was written be on stable storage.
func (f *edgeFile) Sync() error {
	return f.onLoop(func(t *blockcore.Task) error { return f.edge.Flush(t) })
}

// Allocate sets space apart, if the node below can: see blockcore.Reserver. An empty part asks for that.
func (f *edgeFile) Allocate(at, lengthBytes int64) error {
	return f.onLoop(func(t *blockcore.Task) error {
		if err := f.edge.Extend(t, at+lengthBytes); err != nil {
			return err
		}
		return f.edge.Reserve(t, blockcore.Range{Offset: at, Length: lengthBytes})
	})
}
