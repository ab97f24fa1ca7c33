package wire

import (
	"fmt"
	"syscall"
)

// Program is an RPC program with the version that is spoken here.
type Program struct{ Number, Version uint32 }

// The programs. RFC 1833, RFC 1813 2, RFC 1813 5.
var (
	ProgramPortmap  = Program{100000, 2}
	ProgramPortmap3 = Program{100000, 3} // knows more networks than IPv4
	ProgramNFS      = Program{100003, 3}
	ProgramMount    = Program{100005, 3}
)

// PortPortmap is where the port mapper listens, PortNFS where an NFS server does when nobody says otherwise.
const (
	PortPortmap = 111
	PortNFS     = 2049
)

// PortmapGetport and PortmapGetaddr are the procedures of the port mapper's two versions that tell where a program listens. RFC 1833 3.2, 2.2.1.
const (
	PortmapGetport = 3
	PortmapGetaddr = 3
)

// Procedures of MOUNT version 3. RFC 1813 5.2.
const (
	MountMnt  = 1
	MountUmnt = 3
)

// Proc is a procedure of NFS version 3. RFC 1813 3.3.
type Proc uint32

// The procedures that are called here.
const (
	ProcNull     Proc = 0
	ProcGetattr  Proc = 1
	ProcSetattr  Proc = 2
	ProcLookup   Proc = 3
	ProcAccess   Proc = 4
	ProcReadlink Proc = 5
	ProcRead     Proc = 6
	ProcWrite    Proc = 7
	ProcCreate   Proc = 8
	ProcRemove   Proc = 12
	ProcFsinfo   Proc = 19
	ProcCommit   Proc = 21
)

func (p Proc) String() string {
	switch p {
	case ProcNull:
		return "NULL"
	case ProcGetattr:
		return "GETATTR"
	case ProcSetattr:
		return "SETATTR"
	case ProcLookup:
		return "LOOKUP"
	case ProcAccess:
		return "ACCESS"
	case ProcReadlink:
		return "READLINK"
	case ProcRead:
		return "READ"
	case ProcWrite:
		return "WRITE"
	case ProcCreate:
		return "CREATE"
	case ProcRemove:
		return "REMOVE"
	case ProcFsinfo:
		return "FSINFO"
	case ProcCommit:
		return "COMMIT"
	}
	return fmt.Sprintf("procedure %d", uint32(p))
}

// Limits of the protocol, in bytes.
const (
	HandleBytesMax = 64   // RFC 1813 2.4, NFS3_FHSIZE
	NameBytesMax   = 255  // of one component, as far as servers are known to take it
	PathBytesMax   = 1024 // RFC 1813 5.1.2, MNTPATHLEN
	AuthBytesMax   = 400  // RFC 5531 8.2
)

// Stable says how far a WRITE has to go. RFC 1813 3.3.7.
type Stable uint32

// How far a WRITE has to go before it is answered.
const (
	Unstable Stable = 0
	DataSync Stable = 1
	FileSync Stable = 2
)

// Rights that ACCESS asks for. RFC 1813 3.3.4.
const (
	AccessRead   = 0x1
	AccessModify = 0x4
	AccessExtend = 0x8
)

// FileType is ftype3. RFC 1813 2.6.
type FileType uint32

// TypeRegular is a plain file, TypeDirectory a directory, TypeLink a symbolic link (NF3LNK).
const (
	TypeRegular   FileType = 1
	TypeDirectory FileType = 2
	TypeLink      FileType = 5
)

func (f FileType) String() string {
	names := [...]string{1: "a regular file", 2: "a directory", 3: "a block device", 4: "a character device", 5: "a symbolic link", 6: "a socket", 7: "a FIFO"}
	if f > 0 && int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("of type %d", uint32(f))
}

// Status is nfsstat3, and mountstat3 as far as that goes. RFC 1813 2.6, 5.1.4.
type Status uint32

// The statuses that somebody here decides on.
const (
	StatusOK      Status = 0
	StatusPerm    Status = 1
	StatusNoEnt   Status = 2
	StatusIO      Status = 5
	StatusAccess  Status = 13
	StatusExist   Status = 17
	StatusNotDir  Status = 20
	StatusInval   Status = 22
	StatusNoSpace Status = 28
	StatusROFS    Status = 30
	StatusDQuot   Status = 69
	StatusStale   Status = 70
	StatusJukebox Status = 10008
)

// statuses are the name and the errno of each status.
var statuses = map[Status]struct {
	name  string
	errno syscall.Errno
}{
	StatusOK:      {"NFS3_OK", 0},
	StatusPerm:    {"NFS3ERR_PERM", syscall.EPERM},
	StatusNoEnt:   {"NFS3ERR_NOENT", syscall.ENOENT},
	StatusIO:      {"NFS3ERR_IO", syscall.EIO},
	6:             {"NFS3ERR_NXIO", syscall.ENXIO},
	StatusAccess:  {"NFS3ERR_ACCES", syscall.EACCES},
	StatusExist:   {"NFS3ERR_EXIST", syscall.EEXIST},
	18:            {"NFS3ERR_XDEV", syscall.EXDEV},
	19:            {"NFS3ERR_NODEV", syscall.ENODEV},
	StatusNotDir:  {"NFS3ERR_NOTDIR", syscall.ENOTDIR},
	21:            {"NFS3ERR_ISDIR", syscall.EISDIR},
	StatusInval:   {"NFS3ERR_INVAL", syscall.EINVAL},
	27:            {"NFS3ERR_FBIG", syscall.EFBIG},
	StatusNoSpace: {"NFS3ERR_NOSPC", syscall.ENOSPC},
	StatusROFS:    {"NFS3ERR_ROFS", syscall.EROFS},
	31:            {"NFS3ERR_MLINK", syscall.EMLINK},
	63:            {"NFS3ERR_NAMETOOLONG", syscall.ENAMETOOLONG},
	66:            {"NFS3ERR_NOTEMPTY", syscall.ENOTEMPTY},
	StatusDQuot:   {"NFS3ERR_DQUOT", syscall.EDQUOT},
	StatusStale:   {"NFS3ERR_STALE", syscall.ESTALE},
	71:            {"NFS3ERR_REMOTE", syscall.EREMOTE},
	10001:         {"NFS3ERR_BADHANDLE", syscall.ESTALE},
	10002:         {"NFS3ERR_NOT_SYNC", syscall.EIO},
	10003:         {"NFS3ERR_BAD_COOKIE", syscall.EIO},
	10004:         {"NFS3ERR_NOTSUPP", syscall.ENOTSUP},
	10005:         {"NFS3ERR_TOOSMALL", syscall.EIO},
	10006:         {"NFS3ERR_SERVERFAULT", syscall.EREMOTEIO},
	10007:         {"NFS3ERR_BADTYPE", syscall.EINVAL},
	StatusJukebox: {"NFS3ERR_JUKEBOX", syscall.EAGAIN},
}

func (s Status) String() string {
	if known, ok := statuses[s]; ok {
		return known.name
	}
	return fmt.Sprintf("NFS status %d", uint32(s))
}

// Errno is what the status is called on this machine; EIO if it is not known.
func (s Status) Errno() syscall.Errno {
	if known, ok := statuses[s]; ok {
		return known.errno
	}
	return syscall.EIO
}

// StatusError is a status that is not OK.
type StatusError struct{ Status Status }

func (e *StatusError) Error() string { return fmt.Sprintf("%v (%v)", e.Status.Errno(), e.Status) }

// Unwrap returns the errno.
func (e *StatusError) Unwrap() error { return e.Status.Errno() }

// err is nil for OK.
func (s Status) err() error {
	if s == StatusOK {
		return nil
	}
	return &StatusError{s}
}
