package repair

import (
	"io"

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

// pieceBytes bounds the buffer of one read or write.
const pieceBytes = 256 << 10

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

// WriteAt writes, behind the end too.
func (f *edgeFile) WriteAt(p []byte, at int64) (n int, err error) {
	err = f.inPieces(int64(len(p)), func(t *blockcore.Task, buf []byte, done int64) error {
		if err := f.edge.Extend(t, at+done+int64(len(buf))); err != nil {
			return err
		}
		copy(buf, p[done:])
		if err := f.edge.Write(t, buf, at+done, 0); err != nil {
			return err
		}
		n += len(buf)
		return nil
	})
	return n, err
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
