package nfs

import (
	"context"
	"io"

	"nbd-dataplane/backends/nfs/wire"
)

// Reader reads a file off the loop, for who looks into it before it is opened as a disk: to find out its format. It blocks.
type Reader struct {
	// Immutable.
	walker *walker
	cancel context.CancelFunc
	handle wire.Handle
	size   int64
	most   int
}

// NewReader finds the file.
func NewReader(o Options) (*Reader, error) {
	o.ReadOnly = true
	if err := o.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), openMax)
	r := &Reader{walker: newWalker(ctx, &o), cancel: cancel}
	if err := r.find(); err != nil {
		err = r.walker.explain(err)
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) find() error {
	w := r.walker
	found, err := w.find()
	if err != nil {
		return err
	}
	if err := w.inspect(&found); err != nil {
		return err
	}
	sizes, err := w.sizes(found.Handle)
	r.handle, r.size, r.most = found.Handle, int64(found.Attributes.SizeBytes), int(min(sizes.ReadMax, recordBytesMaxControl/2))
	return err
}

// Size is how long the file is.
func (r *Reader) Size() int64 { return r.size }

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	w := r.walker
	w.doing = "read"
	for n < len(p) {
		got := 0
		want := min(len(p)-n, r.most)
		args := wire.AppendRead(nil, r.handle, uint64(off)+uint64(n), uint32(want))
		err := w.nfs.nfs(w.ctx, wire.ProcRead, args, func(b []byte) error {
			result, need, err := wire.ParseRead(b, want)
			switch {
			case err != nil:
				return err
			case result.Err != nil:
				return result.Err
			case need > 0 || len(b) < result.HeadBytes+result.DataBytes:
				return wire.ErrMalformed
			}
			got = copy(p[n:], b[result.HeadBytes:][:result.DataBytes])
			return nil
		})
		if err != nil {
			return n, w.explain(err)
		}
		if got == 0 {
			return n, io.EOF
		}
		n += got
	}
	return n, nil
}

// Close ends the connection.
func (r *Reader) Close() {
	r.walker.close()
	r.cancel()
}
