package nfstest

// directory is open for directories only.
func (x *exchange) directory(handle []byte) *inode {
	f := x.open(handle)
	if f != nil && !f.isDir {
		x.fail(NotDir)
		return nil
	}
	return f
}

// name reads a name off the arguments. Longer ones than the protocol knows a limit for are for nameStatus.
func (x *exchange) name() string { return x.args.text(pathBytesMax) }

func nameStatus(name string) Status {
	switch {
	case name == "" || name == "." || name == "..":
		return Inval
	case len(name) > nameBytesMax:
		return NameTooLong
	}
	return OK
}

// lookup is LOOKUP, RFC 1813 3.3.3.
func lookup(x *exchange) {
	handle, name := x.file(), x.name()
	if !x.read() {
		return
	}
	dir := x.directory(handle)
	if dir == nil {
		return
	}
	f := dir.entries[name]
	switch {
	case !x.may(dir, mayExecute):
		x.fail(Acces)
	case len(name) > nameBytesMax:
		x.fail(NameTooLong)
	case name == ".":
		x.found(dir, dir)
	case name == "..":
		x.found(dir.above(), dir)
	case f == nil:
		x.fail(NoEnt)
	default:
		x.found(f, dir)
	}
}

// above is the directory that f is in; the root of an export is its own.
func (f *inode) above() *inode {
	var above func(dir *inode) *inode
	above = func(dir *inode) *inode {
		for _, in := range dir.entries {
			if in == f {
				return dir
			}
			if found := above(in); found != nil {
				return found
			}
		}
		return nil
	}
	if dir := above(f.export.root); dir != nil {
		return dir
	}
	return f
}

func (x *exchange) found(f, dir *inode) {
	x.begin()
	x.reply.opaque(x.server.handle(f))
	x.maybe(f)
	x.maybe(dir)
}

// readLink is READLINK, RFC 1813 3.3.5.
func readLink(x *exchange) {
	handle := x.file()
	if !x.read() {
		return
	}
	f := x.open(handle)
	switch {
	case f == nil:
	case f.link == "":
		x.fail(Inval)
	default:
		x.begin()
		x.maybe(f)
		x.reply.opaque([]byte(f.link))
	}
}

// mayChange is whether names in a directory may be made and removed.
func (x *exchange) mayChange(dir *inode, name string) Status {
	switch {
	case dir.export.ReadOnly:
		return ROFS
	case !x.may(dir, mayWrite|mayExecute):
		return Acces
	}
	return nameStatus(name)
}

// The ways of CREATE, RFC 1813 3.3.8.
const (
	unchecked = 0
	guarded   = 1
	exclusive = 2
)

func create(x *exchange) {
	handle, name, how := x.file(), x.name(), x.args.u32()
	var w wanted
	var verifier uint64
	if how == exclusive {
		verifier = x.args.u64()
	} else {
		w = x.wanted()
	}
	if !x.read() || how > exclusive {
		x.garbage = true
		return
	}
	dir := x.directory(handle)
	if dir == nil {
		return
	}
	if status := x.mayChange(dir, name); status != OK {
		x.fail(status)
		return
	}
	x.make(dir, name, how, w, verifier)
}

func (x *exchange) make(dir *inode, name string, how uint32, w wanted, verifier uint64) {
	f := dir.entries[name]
	switch {
	case f == nil:
		f = x.add(dir, name, false, w)
		f.exclusive = verifier
	case how == unchecked && !f.isDir:
		x.apply(f, wanted{size: w.size})
	case how == exclusive && verifier != 0 && f.exclusive == verifier:
	default:
		x.fail(Exist)
		return
	}
	x.made(f, dir)
}

func (x *exchange) add(dir *inode, name string, isDir bool, w wanted) *inode {
	f := x.server.newInode(dir.export, isDir, 0, x.who.uid, x.who.gid)
	x.apply(f, w)
	dir.entries[name] = f
	return f
}

// made is the reply to CREATE and MKDIR.
func (x *exchange) made(f, dir *inode) {
	x.begin()
	if x.server.options.NoAttributes {
		x.reply.flag(false) // the handle may be left out as well, RFC 1813 3.3.8
	} else {
		x.reply.flag(true)
		x.reply.opaque(x.server.handle(f))
	}
	x.maybe(f)
	x.around(dir)
}

func mkDir(x *exchange) {
	handle, name, w := x.file(), x.name(), x.wanted()
	if !x.read() {
		return
	}
	dir := x.directory(handle)
	if dir == nil {
		return
	}
	switch status := x.mayChange(dir, name); {
	case status != OK:
		x.fail(status)
	case dir.entries[name] != nil:
		x.fail(Exist)
	default:
		x.made(x.add(dir, name, true, w), dir)
	}
}

func remove(x *exchange) { x.unlink(false) }
func rmDir(x *exchange)  { x.unlink(true) }

func (x *exchange) unlink(isDir bool) {
	handle, name := x.file(), x.name()
	if !x.read() {
		return
	}
	dir := x.directory(handle)
	if dir == nil {
		return
	}
	f, status := dir.entries[name], x.mayChange(dir, name)
	switch {
	case status != OK:
		x.fail(status)
	case f == nil:
		x.fail(NoEnt)
	case f.isDir && !isDir:
		x.fail(IsDir)
	case !f.isDir && isDir:
		x.fail(NotDir)
	case len(f.entries) > 0:
		x.fail(NotEmpty)
	default:
		f.gone = true
		delete(dir.entries, name)
		x.begin()
		x.around(dir)
	}
}

func rename(x *exchange) {
	fromHandle, fromName := x.file(), x.name()
	toHandle, toName := x.file(), x.name()
	if !x.read() {
		return
	}
	from := x.directory(fromHandle)
	if from == nil {
		return
	}
	to := x.directory(toHandle)
	if to == nil {
		return
	}
	if status := x.move(from, fromName, to, toName); status != OK {
		x.fail(status)
		return
	}
	x.begin()
	x.around(from)
	x.around(to)
}

func (x *exchange) move(from *inode, fromName string, to *inode, toName string) Status {
	for _, end := range []struct {
		dir  *inode
		name string
	}{{from, fromName}, {to, toName}} {
		if status := x.mayChange(end.dir, end.name); status != OK {
			return status
		}
	}
	f, over := from.entries[fromName], to.entries[toName]
	switch {
	case f == nil:
		return NoEnt
	case over == f:
		return OK
	case over != nil && (over.isDir || f.isDir):
		return Exist
	case over != nil:
		over.gone = true
	}
	delete(from.entries, fromName)
	to.entries[toName] = f
	return OK
}
