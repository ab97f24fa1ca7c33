package nfstest

import "strconv"

// Limits of what a client may send. A test that sends more has its connection closed.
const (
	recordBytesMax = 4 << 20 // the largest record: wtmax and a header
	handleBytesMax = 64      // RFC 1813 2.4, NFS3_FHSIZE
	nameBytesMax   = 255     // what PATHCONF tells
	pathBytesMax   = 1024    // RFC 1813 5.1.3, MNTPATHLEN
	authBytesMax   = 400     // RFC 5531 8.2
	machineMax     = 255     // RFC 5531, "AUTH_SYS"
	groupsMax      = 16      // RFC 5531, "AUTH_SYS"
	logMax         = 100_000 // calls that the log keeps
	inboxMax       = 4096    // calls of a connection that wait; then the socket is read no more
	hangSeconds    = 30      // a limit on waiting, for hangs only
)

// The programs and their versions.
const (
	progPortmap, versPortmap = 100000, 2
	progNFS, versNFS         = 100003, 3
	progMount, versMount     = 100005, 3
	progNLM, versNLM         = 100021, 4
)

// Proc names a procedure of one of the four programs. Its text is also what rules and counters go by.
type Proc string

// AnyProc in a Rule meets every procedure.
const AnyProc Proc = ""

// The procedures of NFS, RFC 1813 3.3. Those that are missing are answered with PROC_UNAVAIL.
const (
	Null        Proc = "NULL"
	GetAttr     Proc = "GETATTR"
	SetAttr     Proc = "SETATTR"
	Lookup      Proc = "LOOKUP"
	Access      Proc = "ACCESS"
	ReadLink    Proc = "READLINK"
	Read        Proc = "READ"
	Write       Proc = "WRITE"
	Create      Proc = "CREATE"
	MkDir       Proc = "MKDIR"
	Remove      Proc = "REMOVE"
	RmDir       Proc = "RMDIR"
	Rename      Proc = "RENAME"
	ReadDir     Proc = "READDIR"
	ReadDirPlus Proc = "READDIRPLUS"
	FSStat      Proc = "FSSTAT"
	FSInfo      Proc = "FSINFO"
	PathConf    Proc = "PATHCONF"
	Commit      Proc = "COMMIT"
)

// The procedures of MOUNT, RFC 1813 5.2, and of the port mapper, RFC 1833 3.
const (
	MountNull   Proc = "MOUNT NULL"
	Mnt         Proc = "MNT"
	Umnt        Proc = "UMNT"
	UmntAll     Proc = "UMNTALL"
	Exports     Proc = "EXPORT"
	PortmapNull Proc = "PMAP NULL"
	GetPort     Proc = "GETPORT"
)

// The procedures of the lock manager, RFC 1813 6.3.
const (
	LockNull   Proc = "NLM NULL"
	LockTest   Proc = "NLM TEST"
	LockLock   Proc = "NLM LOCK"
	LockUnlock Proc = "NLM UNLOCK"
	LockNMLock Proc = "NLM NM_LOCK"
)

type procNumber struct{ prog, proc uint32 }

var procs = map[procNumber]Proc{
	{progNFS, 0}: Null, {progNFS, 1}: GetAttr, {progNFS, 2}: SetAttr, {progNFS, 3}: Lookup, {progNFS, 4}: Access,
	{progNFS, 5}: ReadLink, {progNFS, 6}: Read, {progNFS, 7}: Write, {progNFS, 8}: Create, {progNFS, 9}: MkDir, {progNFS, 12}: Remove,
	{progNFS, 13}: RmDir, {progNFS, 14}: Rename, {progNFS, 16}: ReadDir, {progNFS, 17}: ReadDirPlus, {progNFS, 18}: FSStat,
	{progNFS, 19}: FSInfo, {progNFS, 20}: PathConf, {progNFS, 21}: Commit,

	{progMount, 0}: MountNull, {progMount, 1}: Mnt, {progMount, 3}: Umnt, {progMount, 4}: UmntAll, {progMount, 5}: Exports,

	{progNLM, 0}: LockNull, {progNLM, 1}: LockTest, {progNLM, 2}: LockLock, {progNLM, 4}: LockUnlock, {progNLM, 22}: LockNMLock,

	{progPortmap, 0}: PortmapNull, {progPortmap, 3}: GetPort,
}

// Status is a status of NFS or MOUNT, which agree where they overlap (RFC 1813 2.6 and 5.1.5).
type Status uint32

// The statuses that the server, or a test, has a use for.
const (
	OK          Status = 0
	Perm        Status = 1
	NoEnt       Status = 2
	IO          Status = 5
	NXIO        Status = 6
	Acces       Status = 13
	Exist       Status = 17
	NoDev       Status = 19
	NotDir      Status = 20
	IsDir       Status = 21
	Inval       Status = 22
	FBig        Status = 27
	NoSpc       Status = 28
	ROFS        Status = 30
	NameTooLong Status = 63
	NotEmpty    Status = 66
	DQuot       Status = 69
	Stale       Status = 70
	BadHandle   Status = 10001
	NotSync     Status = 10002
	NotSupp     Status = 10004
	TooSmall    Status = 10005
	ServerFault Status = 10006
	Jukebox     Status = 10008
)

func (s Status) String() string { return "status " + strconv.Itoa(int(s)) }

// Stability is how stable a WRITE is asked to be, or was, RFC 1813 3.3.7.
type Stability uint32

// The three of them.
const (
	Unstable Stability = 0
	DataSync Stability = 1
	FileSync Stability = 2
)

// AcceptStat is how a call fared below the program, RFC 5531 9. Zero is success.
type AcceptStat uint32

// The ways to fail.
const (
	ProgUnavail  AcceptStat = 1
	ProgMismatch AcceptStat = 2
	ProcUnavail  AcceptStat = 3
	GarbageArgs  AcceptStat = 4
	SystemErr    AcceptStat = 5
)

// AuthStat is why credentials were refused, RFC 5531 9. Zero is not a reason.
type AuthStat uint32

// Some reasons. RPCMismatch is none of RFC 5531's auth_stat: it stands for the other way to deny a call, because of
// the version of RPC.
const (
	BadCred     AuthStat = 1
	BadVerf     AuthStat = 3
	TooWeak     AuthStat = 5
	RPCMismatch AuthStat = 0xffff
)

// The bits of ACCESS, RFC 1813 3.3.4.
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessDelete  = 0x10
	accessExecute = 0x20
)

// The types of files, RFC 1813 2.6, ftype3.
const (
	typeRegular   = 1
	typeDirectory = 2
	typeLink      = 5
)
