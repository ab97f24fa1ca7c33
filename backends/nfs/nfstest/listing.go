package nfstest

import (
	"maps"
	"slices"
)

// entry is a name in a directory; its cookie is its place in the order of names, from one on.
type entry struct {
	name   string
	file   *inode
	cookie uint64
}

// listing is what comes behind a cookie.
func listing(dir *inode, cookie uint64) []entry {
	list := []entry{{".", dir, 1}, {"..", dir, 2}}
	for _, name := range slices.Sorted(maps.Keys(dir.entries)) {
		list = append(list, entry{name, dir.entries[name], uint64(len(list) + 1)})
	}
	return list[min(cookie, uint64(len(list))):]
}

func readDir(x *exchange) {
	handle, cookie := x.file(), x.args.u64()
	x.args.u64() // the cookie's verifier: cookies here never become invalid
	bytesMax := x.args.u32()
	if x.read() {
		x.list(handle, cookie, bytesMax, nil)
	}
}

func readDirPlus(x *exchange) {
	handle, cookie := x.file(), x.args.u64()
	x.args.u64()
	x.args.u32() // a limit on the names alone
	bytesMax := x.args.u32()
	if !x.read() {
		return
	}
	x.list(handle, cookie, bytesMax, func(f *inode) {
		x.maybe(f)
		x.reply.flag(true)
		x.reply.opaque(x.server.handle(f))
	})
}

// list writes entries as long as they fit; more is written behind each of them.
func (x *exchange) list(handle []byte, cookie uint64, bytesMax uint32, more func(*inode)) {
	dir := x.directory(handle)
	switch {
	case dir == nil:
		return
	case !x.may(dir, mayRead):
		x.fail(Acces)
		return
	}
	x.begin()
	x.maybe(dir)
	x.reply.u64(0) // the cookies' verifier
	all := listing(dir, cookie)
	for i, e := range all {
		before := len(x.reply.bytes)
		x.reply.flag(true)
		x.reply.u64(e.file.id)
		x.reply.text(e.name)
		x.reply.u64(e.cookie)
		if more != nil {
			more(e.file)
		}
		if len(x.reply.bytes)+8 <= int(bytesMax) {
			continue
		}
		x.reply.bytes = x.reply.bytes[:before]
		x.cutShort(i == 0)
		return
	}
	x.reply.flag(false)
	x.reply.flag(true) // the end of the directory
}

// cutShort ends a list that goes on with another call; one that does not even begin is an error.
func (x *exchange) cutShort(isEmpty bool) {
	if isEmpty {
		x.reply = writer{}
		x.fail(TooSmall)
		return
	}
	x.reply.flag(false)
	x.reply.flag(false)
}
