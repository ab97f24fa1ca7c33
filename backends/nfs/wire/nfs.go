package wire

import "encoding/binary"

// Handle names a file or a directory to the server that made it.
type Handle []byte

// Attributes are those of a file that are of interest here. RFC 1813 2.6, fattr3.
type Attributes struct {
	Type      FileType
	Mode      uint32
	UID, GID  uint32
	SizeBytes uint64
	UsedBytes uint64
	FSID      uint64
	FileID    uint64
}

// attributesBytes is the length of fattr3.
const attributesBytes = 84

func (d *decoder) attributes() (a Attributes) {
	a.Type = FileType(d.uint32())
	a.Mode = d.uint32()
	d.uint32() // nlink
	a.UID, a.GID = d.uint32(), d.uint32()
	a.SizeBytes, a.UsedBytes = d.uint64(), d.uint64()
	d.uint64() // rdev
	a.FSID, a.FileID = d.uint64(), d.uint64()
	d.take(24) // atime, mtime, ctime
	return a
}

// postOp reads post_op_attr. RFC 1813 2.6.
func (d *decoder) postOp() (a Attributes, has bool) {
	if has = d.bool(); has {
		a = d.attributes()
	}
	return a, has
}

// wcc passes over wcc_data. RFC 1813 2.6.
func (d *decoder) wcc() {
	if d.bool() {
		d.take(24) // size, mtime, ctime
	}
	d.postOp()
}

// begin reads the status that all results begin with.
func begin(b []byte) (d decoder, err error) {
	d.rest = b
	s := Status(d.uint32())
	if d.err != nil {
		return d, d.err
	}
	return d, s.err()
}

// AppendHandle appends the arguments of GETATTR, READLINK and FSINFO. RFC 1813 3.3.1, 3.3.5, 3.3.19.
func AppendHandle(b []byte, h Handle) []byte { return appendOpaque(b, h) }

// AppendLookup appends the arguments of LOOKUP and REMOVE. RFC 1813 3.3.3, 3.3.12.
func AppendLookup(b []byte, dir Handle, name string) []byte {
	return appendOpaque(appendOpaque(b, dir), name)
}

// AppendAccess appends the arguments of ACCESS. RFC 1813 3.3.4.
func AppendAccess(b []byte, h Handle, rights uint32) []byte {
	return appendUint32(appendOpaque(b, h), rights)
}

// AppendSetSize appends the arguments of a SETATTR that changes the size alone. RFC 1813 3.3.2.
func AppendSetSize(b []byte, h Handle, sizeBytes uint64) []byte {
	b = appendOpaque(b, h)
	b = appendUint64(b, 0) // mode, uid: as they are
	b = appendUint32(b, 0) // gid
	b = appendUint32(b, 1)
	b = appendUint64(b, sizeBytes)
	b = appendUint64(b, 0)    // atime, mtime: as they are
	return appendUint32(b, 0) // no guard
}

// AppendCreate appends the arguments of a CREATE that fails if the file is there (GUARDED). RFC 1813 3.3.8.
func AppendCreate(b []byte, dir Handle, name string, mode uint32, sizeBytes uint64) []byte {
	b = AppendLookup(b, dir, name)
	b = appendUint32(b, 1) // GUARDED
	b = appendUint32(b, 1)
	b = appendUint32(b, mode)
	b = appendUint64(b, 0) // uid, gid: as the server sees fit
	b = appendUint32(b, 1)
	b = appendUint64(b, sizeBytes)
	return appendUint64(b, 0) // atime, mtime
}

// AppendRead appends the arguments of READ. RFC 1813 3.3.6.
func AppendRead(b []byte, h Handle, offset uint64, bytes uint32) []byte {
	return appendUint32(appendUint64(appendOpaque(b, h), offset), bytes)
}

// AppendWrite appends the arguments of WRITE, but for the data and its padding, which follow. RFC 1813 3.3.7.
func AppendWrite(b []byte, h Handle, offset uint64, bytes uint32, how Stable) []byte {
	b = appendUint64(appendOpaque(b, h), offset)
	b = appendUint32(b, bytes)
	b = appendUint32(b, uint32(how))
	return appendUint32(b, bytes)
}

// AppendCommit appends the arguments of COMMIT for the whole file. RFC 1813 3.3.21.
func AppendCommit(b []byte, h Handle) []byte {
	return appendUint32(appendUint64(appendOpaque(b, h), 0), 0)
}

// ParseGetattr reads the results of GETATTR.
func ParseGetattr(b []byte) (Attributes, error) {
	d, err := begin(b)
	if err != nil {
		return Attributes{}, err
	}
	a := d.attributes()
	return a, d.err
}

// ParseSetattr reads the results of SETATTR, and of REMOVE, of which there is only the status.
func ParseSetattr(b []byte) error {
	d, err := begin(b)
	if err != nil {
		return err
	}
	d.wcc()
	return d.err
}

// ParseReadlink reads the results of READLINK: where the link leads, in whatever words it has. RFC 1813 3.3.5.
func ParseReadlink(b []byte) (target string, err error) {
	d, err := begin(b)
	if err != nil {
		return "", err
	}
	d.postOp()
	target = string(d.opaque(PathBytesMax))
	return target, d.err
}

// Found is a file in a directory.
type Found struct {
	Handle     Handle
	Attributes Attributes
	Known      bool // Attributes were told
}

// ParseLookup reads the results of LOOKUP.
func ParseLookup(b []byte) (f Found, err error) {
	d, err := begin(b)
	if err != nil {
		return f, err
	}
	f.Handle = d.handle()
	f.Attributes, f.Known = d.postOp()
	d.postOp()
	return f, d.err
}

// handle copies a handle, which outlives its reply.
func (d *decoder) handle() Handle { return append(Handle(nil), d.opaque(HandleBytesMax)...) }

// ParseCreate reads the results of CREATE. A server may leave out the handle: then it is nil.
func ParseCreate(b []byte) (f Found, err error) {
	d, err := begin(b)
	if err != nil {
		return f, err
	}
	if d.bool() {
		f.Handle = d.handle()
	}
	f.Attributes, f.Known = d.postOp()
	d.wcc()
	return f, d.err
}

// ParseAccess reads the results of ACCESS: the rights that there are.
func ParseAccess(b []byte) (rights uint32, err error) {
	d, err := begin(b)
	if err != nil {
		return 0, err
	}
	d.postOp()
	rights = d.uint32()
	return rights, d.err
}

// Sizes are what a server says of its requests, in bytes. RFC 1813 3.3.19.
type Sizes struct {
	ReadMax, WriteMax uint32
	FileMax           uint64
}

// ParseFsinfo reads the results of FSINFO.
func ParseFsinfo(b []byte) (s Sizes, err error) {
	d, err := begin(b)
	if err != nil {
		return s, err
	}
	d.postOp()
	s.ReadMax = d.uint32()
	d.take(8) // rtpref, rtmult
	s.WriteMax = d.uint32()
	d.take(12) // wtpref, wtmult, dtpref
	s.FileMax = d.uint64()
	d.take(12) // time_delta, properties
	return s, d.err
}

// Written is what a server has done with a WRITE.
type Written struct {
	Bytes     uint32
	Committed Stable
	Verifier  uint64 // of the server's run: data that is not stable is gone when it changes
}

// ParseWrite reads the results of WRITE.
func ParseWrite(b []byte) (w Written, err error) {
	d, err := begin(b)
	if err != nil {
		return w, err
	}
	d.wcc()
	w.Bytes = d.uint32()
	w.Committed = Stable(d.uint32())
	w.Verifier = d.uint64()
	if w.Committed > FileSync {
		d.err = ErrMalformed
	}
	return w, d.err
}

// ParseCommit reads the results of COMMIT.
func ParseCommit(b []byte) (verifier uint64, err error) {
	d, err := begin(b)
	if err != nil {
		return 0, err
	}
	d.wcc()
	verifier = d.uint64()
	return verifier, d.err
}

// ReadResult is what the results of READ say before the data.
type ReadResult struct {
	DataBytes int
	EOF       bool
	HeadBytes int   // how long all that is
	Err       error // a *StatusError: there is no data
}

// ParseRead reads the results of READ up to the data, which may be at most dataBytesMax long. When it needs more than b it returns how many
// bytes in all, at least; it never asks for a byte of the data.
func ParseRead(b []byte, dataBytesMax int) (r ReadResult, needBytes int, err error) {
	if len(b) < 8 {
		return r, 8, nil
	}
	d := decoder{rest: b}
	if r.Err = Status(d.uint32()).err(); r.Err != nil {
		return r, 0, nil
	}
	head := 8 + 12
	if binary.BigEndian.Uint32(b[4:]) == 1 {
		head += attributesBytes
	}
	if len(b) < head {
		return r, head, nil
	}
	d.postOp()
	count := d.uint32()
	r.EOF = d.bool()
	length := d.uint32()
	if d.err != nil || count != length || uint64(length) > uint64(dataBytesMax) {
		return r, 0, ErrMalformed
	}
	r.DataBytes, r.HeadBytes = int(length), head
	return r, 0, nil
}
