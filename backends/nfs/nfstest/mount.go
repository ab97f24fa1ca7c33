package nfstest

import "strings"

const protocolTCP = 6 // RFC 1833 3

func getPort(x *exchange) {
	prog, vers, protocol := x.args.u32(), x.args.u32(), x.args.u32()
	x.args.u32() // the port of the question means nothing
	if !x.read() {
		return
	}
	port := 0
	if protocol == protocolTCP && versions[prog] == vers && (prog == progPortmap || !x.server.options.NotRegistered) {
		port = x.server.port(prog)
	}
	x.reply.u32(uint32(port))
}

// mnt finds an export, or a directory in one.
func mnt(x *exchange) {
	path := x.args.text(pathBytesMax)
	if !x.read() {
		return
	}
	f, status := x.server.find(path)
	switch {
	case status != OK:
		x.fail(status)
	case f.export.Denied:
		x.fail(Acces)
	case !f.isDir:
		x.fail(NotDir)
	default:
		x.begin()
		x.reply.opaque(x.server.handle(f))
		x.reply.u32(1, authSys) // the flavors that are accepted
	}
}

func umnt(x *exchange) {
	x.args.text(pathBytesMax)
	x.read()
}

func listExports(x *exchange) {
	if !x.read() {
		return
	}
	for _, e := range x.server.exports {
		x.reply.flag(true)
		x.reply.text(e.Path)
		x.reply.flag(false) // no groups: for everybody
	}
	x.reply.flag(false)
}

// find walks down from an export. The caller holds mu.
func (s *Server) find(path string) (*inode, Status) {
	for _, e := range s.exports {
		rest, below := strings.CutPrefix(path, e.Path)
		if !below || rest != "" && rest[0] != '/' && !strings.HasSuffix(e.Path, "/") {
			continue
		}
		f := e.root
		for name := range strings.SplitSeq(rest, "/") {
			if f != nil && name != "" {
				f = f.entries[name]
			}
		}
		if f != nil {
			return f, OK
		}
	}
	return nil, NoEnt
}
