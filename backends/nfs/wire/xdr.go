package wire

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is a reply that cannot be what it says.
var ErrMalformed = errors.New("malformed reply")

// appendUint32 appends an unsigned int. RFC 4506 4.2.
func appendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

// appendUint64 appends an unsigned hyper. RFC 4506 4.5.
func appendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// appendOpaque appends a variable-length opaque or a string. RFC 4506 4.10, 4.11.
func appendOpaque[T ~string | ~[]byte](b []byte, p T) []byte {
	b = appendUint32(b, uint32(len(p)))
	b = append(b, p...)
	return append(b, make([]byte, Padding(len(p)))...)
}

// Padding is how many zero bytes follow n bytes of opaque data.
func Padding(n int) int { return -n & 3 }

// decoder reads XDR out of what is in memory. After the first error it gives zeroes.
type decoder struct {
	rest []byte
	err  error
}

// take returns the next n bytes; nil if there are not so many.
func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.rest) {
		d.err = ErrMalformed
		return nil
	}
	p := d.rest[:n:n]
	d.rest = d.rest[n:]
	return p
}

func (d *decoder) uint32() uint32 {
	p := d.take(4)
	if p == nil {
		return 0
	}
	return binary.BigEndian.Uint32(p)
}

func (d *decoder) uint64() uint64 {
	p := d.take(8)
	if p == nil {
		return 0
	}
	return binary.BigEndian.Uint64(p)
}

// bool refuses what is neither 0 nor 1.
func (d *decoder) bool() bool {
	v := d.uint32()
	if v > 1 {
		d.err = ErrMalformed
	}
	return v == 1 && d.err == nil
}

// opaque returns variable-length opaque data of at most max bytes, which stay where they are.
func (d *decoder) opaque(max int) []byte {
	n := d.uint32()
	if d.err != nil || n > uint32(max) {
		d.err = ErrMalformed
		return nil
	}
	p := d.take(int(n))
	d.take(Padding(int(n)))
	return p
}
