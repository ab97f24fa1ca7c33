package nfstest

import (
	"encoding/binary"
	"errors"
)

// errShort is what a reader ends with when the arguments are shorter than their types say, or longer than their limits.
var errShort = errors.New("arguments do not fit their types")

// reader takes values of XDR (RFC 4506) off a message. After the first value that does not fit it has failed, and
// returns zeroes.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n < 0 || n > len(r.rest) {
		r.failed = true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// flag is an XDR bool, which has two values only.
func (r *reader) flag() bool {
	v := r.u32()
	if v > 1 {
		r.failed = true
	}
	return v == 1
}

// opaque is variable length data with its padding, whose bytes must be zero.
func (r *reader) opaque(sizeMax int) []byte {
	n := r.u32()
	if uint64(n) > uint64(sizeMax) {
		r.failed = true
		return nil
	}
	data := r.take(int(n))
	for _, pad := range r.take(padding(int(n))) {
		if pad != 0 {
			r.failed = true
		}
	}
	return data
}

func (r *reader) text(sizeMax int) string { return string(r.opaque(sizeMax)) }

// end is the error of what was read; bytes that are left over are one too.
func (r *reader) end() error {
	if r.failed || len(r.rest) > 0 {
		return errShort
	}
	return nil
}

// writer puts values of XDR together.
type writer struct{ bytes []byte }

func (w *writer) u32(values ...uint32) {
	for _, v := range values {
		w.bytes = binary.BigEndian.AppendUint32(w.bytes, v)
	}
}

func (w *writer) u64(values ...uint64) {
	for _, v := range values {
		w.bytes = binary.BigEndian.AppendUint64(w.bytes, v)
	}
}

func (w *writer) flag(v bool) {
	if v {
		w.u32(1)
	} else {
		w.u32(0)
	}
}

func (w *writer) fixed(data []byte) { w.bytes = append(w.bytes, data...) }

func (w *writer) opaque(data []byte) {
	w.u32(uint32(len(data)))
	w.fixed(data)
	w.fixed(make([]byte, padding(len(data))))
}

func (w *writer) text(s string) { w.opaque([]byte(s)) }

// padding is how many bytes make n a multiple of four.
func padding(n int) int { return (4 - n%4) % 4 }
