package nfstest

// short is how many bytes of n a READ or a WRITE gets done.
func (f Fault) short(n int) int {
	switch {
	case f.ShortToNothing:
		return 0
	case f.Short > 0:
		return min(n, f.Short)
	}
	return n
}

// regular is open for files only.
func (x *exchange) regular(handle []byte) *inode {
	f := x.open(handle)
	if f != nil && f.isDir {
		x.fail(IsDir)
		return nil
	}
	if f != nil && f.link != "" {
		x.fail(Inval)
		return nil
	}
	return f
}

// read is READ, RFC 1813 3.3.6.
func read(x *exchange) {
	handle, offset, count := x.file(), x.args.u64(), x.args.u32()
	if !x.read() {
		return
	}
	f := x.regular(handle)
	switch {
	case f == nil:
	case !x.mayDo(f, mayRead):
		x.fail(Acces)
	case offset > 1<<63-1:
		x.fail(Inval)
	default:
		data := make([]byte, x.fault.short(int(min(count, uint32(x.server.options.ReadBytesMax)))))
		data = data[:f.contents.read(data, int64(offset))]
		x.begin()
		x.maybe(f)
		x.reply.u32(uint32(len(data)))
		x.reply.flag(int64(offset)+int64(len(data)) >= f.contents.sizeBytes)
		x.reply.opaque(data)
	}
}

// write is WRITE, RFC 1813 3.3.7.
func write(x *exchange) {
	handle, offset, count, how := x.file(), x.args.u64(), x.args.u32(), Stability(x.args.u32())
	data := x.args.opaque(recordBytesMax)
	if !x.read() {
		return
	}
	if int(count) != len(data) || how > FileSync {
		x.garbage = true
		return
	}
	f := x.regular(handle)
	if f == nil {
		return
	}
	data = data[:x.fault.short(min(len(data), x.server.options.WriteBytesMax))]
	if status := x.store(f, data, offset); status != OK {
		x.fail(status)
		return
	}
	if x.server.options.AlwaysSync || x.fault.Stable {
		how = FileSync
	}
	if how != Unstable {
		f.sync(span{int64(offset), int64(offset) + int64(len(data))})
	}
	if x.fault.ClaimUnstable {
		how = Unstable
	}
	x.begin()
	x.around(f)
	x.reply.u32(uint32(len(data)), uint32(how))
	x.reply.u64(x.verifier())
}

func (x *exchange) store(f *inode, data []byte, offset uint64) Status {
	end := offset + uint64(len(data))
	switch {
	case f.export.ReadOnly:
		return ROFS
	case !x.mayDo(f, mayWrite):
		return Acces
	case end < offset || end > x.server.options.FileBytesMax:
		return FBig
	}
	if len(data) > 0 {
		f.put(data, int64(offset))
	}
	return OK
}

func (x *exchange) verifier() uint64 {
	if x.fault.Verifier != 0 {
		return x.fault.Verifier
	}
	return x.server.verifier
}

// commit is COMMIT, RFC 1813 3.3.21. A count of zero means to the end.
func commit(x *exchange) {
	handle, offset, count := x.file(), x.args.u64(), x.args.u32()
	if !x.read() {
		return
	}
	f := x.regular(handle)
	switch {
	case f == nil:
		return
	case f.export.ReadOnly:
		x.fail(ROFS)
		return
	case !x.mayDo(f, mayWrite):
		x.fail(Acces)
		return
	}
	end := uint64(1<<63 - 1)
	if count != 0 {
		end = min(end, offset+uint64(count))
	}
	f.sync(span{int64(min(offset, end)), int64(end)})
	x.begin()
	x.around(f)
	x.reply.u64(x.verifier())
}
