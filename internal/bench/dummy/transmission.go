package dummy

import "encoding/binary"

// request answers one request into out, and reports whether there may be another.
func (c *connection) request() bool {
	if c.s.Hangup > 0 && c.requests == c.s.Hangup {
		return false
	}
	c.requests++
	if !c.need(requestLen) {
		return false
	}
	h := c.take(requestLen)
	flags, typ := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
	cookie, offset := binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint64(h[16:])
	length := int(binary.BigEndian.Uint32(h[24:]))
	if binary.BigEndian.Uint32(h) != requestMagic || length > blockMax {
		return false
	}
	if c.s.Observe != nil {
		c.s.Observe(typ, flags)
	}
	var payload []byte
	if typ == cmdWrite {
		if !c.need(length) {
			return false
		}
		payload = c.take(length)
	}
	size := uint64(len(c.s.data))
	switch {
	case typ == cmdDisc:
		return false
	case offset > size || uint64(length) > size-offset:
		c.simple(einval, cookie)
	case c.s.FailAt != 0 && offset == uint64(c.s.FailAt):
		c.simple(eio, cookie)
	case typ == cmdRead:
		return c.read(cookie, int64(offset), length)
	case typ == cmdWrite:
		c.write(cookie, int64(offset), payload)
	case typ == cmdFlush:
		c.simple(0, cookie)
	default:
		c.simple(einval, cookie)
	}
	return true
}

func (c *connection) simple(code uint32, cookie uint64) {
	c.u32(simpleMagic)
	c.u32(code)
	c.u64(cookie)
}

func (c *connection) write(cookie uint64, offset int64, payload []byte) {
	c.s.mu.Lock()
	copy(c.s.data[offset:], payload)
	c.s.mu.Unlock()
	c.simple(0, cookie)
	if c.s.Twice {
		c.simple(0, cookie)
	}
}

func (c *connection) read(cookie uint64, offset int64, length int) bool {
	if len(c.out)+length > outBytes && c.flush() != nil {
		return false
	}
	if c.structured {
		c.chunks(cookie, offset, length)
		return true
	}
	c.simple(0, cookie)
	c.data(offset, length)
	return true
}

// data appends the bytes of the export, with the fault that was asked for.
func (c *connection) data(offset int64, length int) {
	at := len(c.out)
	c.s.mu.RLock()
	c.out = append(c.out, c.s.data[offset:offset+int64(length)]...)
	c.s.mu.RUnlock()
	if i := c.s.CorruptAt - offset; c.s.CorruptAt != 0 && i >= 0 && i < int64(length) {
		c.out[at+int(i)] ^= 0x10
	}
}

// chunks answers a read in two pieces of data, or as a hole where nothing was written.
// NBD proto.md, "Structured reply chunk message".
func (c *connection) chunks(cookie uint64, offset int64, length int) {
	if c.zero(offset, length) {
		c.chunk(1, chunkHole, cookie, 12)
		c.u64(uint64(offset))
		c.u32(uint32(length))
		return
	}
	half := length / 2
	c.chunk(0, chunkData, cookie, 8+length-half)
	c.u64(uint64(offset) + uint64(half))
	c.data(offset+int64(half), length-half)
	c.chunk(0, chunkData, cookie, 8+half)
	c.u64(uint64(offset))
	c.data(offset, half)
	c.chunk(1, 0, cookie, 0)
}

func (c *connection) chunk(flags, typ uint16, cookie uint64, length int) {
	c.u32(structuredMagic)
	c.u16(flags)
	c.u16(typ)
	c.u64(cookie)
	c.u32(uint32(length))
}

func (c *connection) zero(offset int64, length int) bool {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	for _, b := range c.s.data[offset : offset+int64(length)] {
		if b != 0 {
			return false
		}
	}
	return true
}
