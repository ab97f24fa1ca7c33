package nfstest

// What FSSTAT tells: it is always the same.
const (
	volumeBytes = 1 << 40
	volumeFiles = 1 << 20
)

func fsStat(x *exchange) {
	x.aboutRoot(func() {
		x.reply.u64(volumeBytes, volumeBytes/2, volumeBytes/2, volumeFiles, volumeFiles/2, volumeFiles/2)
		x.reply.u32(0) // seconds for which nothing will change
	})
}

// The properties of FSINFO, RFC 1813 3.3.19.
const (
	propertyHomogeneous = 0x08
	propertyCanSetTime  = 0x10
)

func fsInfo(x *exchange) {
	o := x.server.options
	x.aboutRoot(func() {
		x.reply.u32(uint32(o.ReadBytesMax), uint32(o.ReadBytesMax), pageBytes)
		x.reply.u32(uint32(o.WriteBytesMax), uint32(o.WriteBytesPreferred), pageBytes)
		x.reply.u32(uint32(min(o.ReadBytesMax, 64<<10))) // of READDIR
		x.reply.u64(o.FileBytesMax)
		x.reply.u32(0, 1) // the resolution of times: a nanosecond
		x.reply.u32(propertyHomogeneous | propertyCanSetTime)
	})
}

func pathConf(x *exchange) {
	x.aboutRoot(func() {
		x.reply.u32(1, nameBytesMax) // links to a file, bytes of a name
		x.reply.flag(true)           // longer names are refused, not cut
		x.reply.flag(true)           // only root may give files away
		x.reply.flag(false)          // upper and lower case are not the same
		x.reply.flag(true)           // and are kept
	})
}

// aboutRoot is a procedure whose argument is one handle, and whose results follow the attributes.
func (x *exchange) aboutRoot(results func()) {
	handle := x.file()
	if !x.read() {
		return
	}
	if f := x.open(handle); f != nil {
		x.begin()
		x.maybe(f)
		results()
	}
}
