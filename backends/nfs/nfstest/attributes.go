package nfstest

import (
	"bytes"
	"encoding/binary"
	"time"
)

// newInode makes a file or a directory that has no name yet. The caller holds mu, or is Start.
func (s *Server) newInode(e *exported, isDir bool, mode, uid, gid uint32) *inode {
	f := &inode{
		id: s.nextID, isDir: isDir, export: e, mode: mode, uid: uid, gid: gid, changed: time.Now(),
		contents: newPages(), stable: newPages(),
	}
	if isDir {
		f.entries = map[string]*inode{}
	}
	s.files[f.id] = f
	s.nextID++
	return f
}

// handle is a file handle: the salt of the server, the file's number, and zeroes.
func (s *Server) handle(f *inode) []byte {
	h := make([]byte, s.options.HandleBytes)
	binary.BigEndian.PutUint64(h, s.salt)
	binary.BigEndian.PutUint64(h[8:], f.id)
	return h
}

// idOf is the number in a handle, 0 if it is none of ours.
func (s *Server) idOf(handle []byte) uint64 {
	if len(handle) != s.options.HandleBytes || binary.BigEndian.Uint64(handle) != s.salt {
		return 0
	}
	id := binary.BigEndian.Uint64(handle[8:])
	if id >= s.nextID || !bytes.Equal(handle, s.handle(&inode{id: id})) {
		return 0
	}
	return id
}

// file reads a handle off the arguments.
func (x *exchange) file() []byte { return x.args.opaque(handleBytesMax) }

// open is the file of a handle; without one the call has failed.
func (x *exchange) open(handle []byte) *inode {
	id := x.server.idOf(handle)
	f := x.server.files[id]
	switch {
	case id == 0:
		x.fail(BadHandle)
		return nil
	case f == nil || f.gone:
		x.fail(Stale)
		return nil
	}
	return f
}

// The bits of a mode, for one of owner, group and others.
const (
	mayRead    = 4
	mayWrite   = 2
	mayExecute = 1
)

// may says whether the caller has all of the bits; uid 0 has. An owner may read and write whatever the mode, as RFC 1813
// 4.4 has it for clients that opened a file before.
func (x *exchange) may(f *inode, bits uint32) bool {
	switch {
	case x.who.uid == 0:
		return true
	case x.who.uid == f.uid:
		return (f.mode>>6)&bits == bits
	case x.who.inGroup(f.gid):
		return (f.mode>>3)&bits == bits
	}
	return f.mode&bits == bits
}

// mayDo is may with the rule of RFC 1813 4.4 for READ and WRITE.
func (x *exchange) mayDo(f *inode, bits uint32) bool { return x.who.uid == f.uid || x.may(f, bits) }

func (f *inode) links() uint32 {
	if f.isDir {
		return 2
	}
	return 1
}

func (f *inode) size() int64 {
	if f.isDir {
		return pageBytes
	}
	if f.link != "" {
		return int64(len(f.link))
	}
	return f.contents.sizeBytes
}

func (f *inode) kind() uint32 {
	if f.isDir {
		return typeDirectory
	}
	if f.link != "" {
		return typeLink
	}
	return typeRegular
}

// attributes is an fattr3, RFC 1813 2.6.
func (x *exchange) attributes(f *inode) {
	w := &x.reply
	w.u32(f.kind(), f.mode, f.links(), f.uid, f.gid)
	w.u64(uint64(f.size()), uint64(len(f.contents.at))*pageBytes)
	w.u32(0, 0)                                 // the device that it stands for
	w.u64(x.server.salt+f.export.root.id, f.id) // each export is a file system
	for range 3 {                               // of access, modification, change
		x.time(f)
	}
}

func (x *exchange) time(f *inode) {
	x.reply.u32(uint32(f.changed.Unix()), uint32(f.changed.Nanosecond()))
}

// maybe is a post_op_attr.
func (x *exchange) maybe(f *inode) {
	if x.server.options.NoAttributes {
		x.reply.flag(false)
		return
	}
	x.reply.flag(true)
	x.attributes(f)
}

// around is a wcc_data without what was before, which a server may leave out.
func (x *exchange) around(f *inode) {
	x.reply.flag(false)
	x.maybe(f)
}

func getAttr(x *exchange) {
	handle := x.file()
	if !x.read() {
		return
	}
	if f := x.open(handle); f != nil {
		x.begin()
		x.attributes(f)
	}
}

// wanted is a sattr3: what is nil is left as it is.
type wanted struct {
	mode, uid, gid *uint32
	size           *uint64
}

func (x *exchange) wanted() wanted {
	var w wanted
	for _, field := range []**uint32{&w.mode, &w.uid, &w.gid} {
		if x.args.flag() {
			v := x.args.u32()
			*field = &v
		}
	}
	if x.args.flag() {
		v := x.args.u64()
		w.size = &v
	}
	for range 2 { // times of access and modification
		if x.args.u32() == 2 {
			x.args.u64()
		}
	}
	return w
}

func setAttr(x *exchange) {
	handle, w := x.file(), x.wanted()
	if guarded := x.args.flag(); guarded {
		x.args.u64()
	}
	if !x.read() {
		return
	}
	f := x.open(handle)
	if f == nil {
		return
	}
	if status := x.change(f, w); status != OK {
		x.fail(status)
		return
	}
	x.begin()
	x.around(f)
}

func (x *exchange) change(f *inode, w wanted) Status {
	switch {
	case f.export.ReadOnly:
		return ROFS
	case (w.mode != nil || w.uid != nil || w.gid != nil) && x.who.uid != 0 && x.who.uid != f.uid:
		return Perm
	case w.size != nil && !x.mayDo(f, mayWrite):
		return Acces
	case w.size != nil && f.isDir:
		return IsDir
	case w.size != nil && *w.size > x.server.options.FileBytesMax:
		return FBig
	}
	x.apply(f, w)
	return OK
}

// apply sets attributes without asking.
func (x *exchange) apply(f *inode, w wanted) {
	set := func(field, value *uint32) {
		if value != nil {
			*field = *value
		}
	}
	set(&f.mode, w.mode)
	set(&f.uid, w.uid)
	set(&f.gid, w.gid)
	if w.size != nil && !f.isDir {
		f.resize(int64(*w.size))
	}
}

func access(x *exchange) {
	handle, asked := x.file(), x.args.u32()
	if !x.read() {
		return
	}
	f := x.open(handle)
	if f == nil {
		return
	}
	granted := uint32(0)
	grant := func(bits, need uint32) {
		if x.may(f, need) {
			granted |= bits
		}
	}
	grant(accessRead, mayRead)
	if !f.export.ReadOnly {
		grant(accessModify|accessExtend, mayWrite)
	}
	if f.isDir {
		grant(accessLookup, mayExecute)
		grant(accessDelete, mayWrite)
	} else {
		grant(accessExecute, mayExecute)
	}
	x.begin()
	x.maybe(f)
	x.reply.u32(granted & asked)
}
