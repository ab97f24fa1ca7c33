package nfstest

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	lastFragment = 1 << 31 // RFC 5531 11, record marking
	rpcVersion   = 2
	authNone     = 0
	authSys      = 1
	nobody       = 65534
)

var errRecord = errors.New("a record is longer than any call")

// readRecord puts the fragments of one record together.
func readRecord(from io.Reader) ([]byte, error) {
	var record []byte
	for {
		var mark [4]byte
		if _, err := io.ReadFull(from, mark[:]); err != nil {
			return nil, err
		}
		word := binary.BigEndian.Uint32(mark[:])
		size := int(word &^ lastFragment)
		if size+len(record) > recordBytesMax {
			return nil, errRecord
		}
		record = append(record, make([]byte, size)...)
		if _, err := io.ReadFull(from, record[len(record)-size:]); err != nil {
			return nil, err
		}
		if word&lastFragment != 0 {
			return record, nil
		}
	}
}

// frame puts record marks before a message: one, or more if fragments may have at most fragmentBytes (0: no limit).
func frame(message []byte, fragmentBytes int) []byte {
	if fragmentBytes <= 0 {
		fragmentBytes = max(1, len(message))
	}
	framed := make([]byte, 0, len(message)+4*(1+len(message)/fragmentBytes))
	for {
		part := message[:min(len(message), fragmentBytes)]
		message = message[len(part):]
		word := uint32(len(part))
		if len(message) == 0 {
			word |= lastFragment
		}
		framed = append(binary.BigEndian.AppendUint32(framed, word), part...)
		if len(message) == 0 {
			return framed
		}
	}
}

// header is what a call begins with.
type header struct {
	xid, rpc, prog, vers, proc uint32
	who                        credentials
}

// credentials are those of AUTH_SYS. Whoever has others, or none, is nobody.
type credentials struct {
	uid, gid uint32
	groups   []uint32
}

func (c credentials) inGroup(gid uint32) bool {
	for _, g := range c.groups {
		if g == gid {
			return true
		}
	}
	return c.gid == gid
}

// readHeader takes the header off a call; what is left in the reader are the arguments.
func readHeader(r *reader) (header, error) {
	h := header{xid: r.u32()}
	if r.u32() != 0 { // CALL
		r.failed = true
	}
	h.rpc, h.prog, h.vers, h.proc = r.u32(), r.u32(), r.u32(), r.u32()
	flavor, body := r.u32(), r.opaque(authBytesMax)
	r.u32()
	r.opaque(authBytesMax)
	if r.failed {
		return header{}, errShort
	}
	h.who = credentials{uid: nobody, gid: nobody}
	if flavor == authSys {
		return h, h.who.read(body)
	}
	return h, nil
}

func (c *credentials) read(body []byte) error {
	r := reader{rest: body}
	r.u32() // stamp
	r.opaque(machineMax)
	c.uid, c.gid = r.u32(), r.u32()
	n := r.u32()
	if n > groupsMax {
		return errShort
	}
	for range n {
		c.groups = append(c.groups, r.u32())
	}
	return r.end()
}

// accepted is a reply to a call that was understood: with success the results follow.
func accepted(xid uint32, stat AcceptStat, results []byte) []byte {
	var w writer
	w.u32(xid, 1, 0, authNone, 0, uint32(stat))
	w.fixed(results)
	return w.bytes
}

// denied is a reply to a call whose credentials, or whose version of RPC, will not do.
func denied(xid uint32, why AuthStat) []byte {
	var w writer
	if why == RPCMismatch {
		w.u32(xid, 1, 1, 0, rpcVersion, rpcVersion)
	} else {
		w.u32(xid, 1, 1, 1, uint32(why))
	}
	return w.bytes
}

// mismatch is the body of PROG_MISMATCH: the versions that there are.
func mismatch(version uint32) []byte {
	var w writer
	w.u32(version, version)
	return w.bytes
}
