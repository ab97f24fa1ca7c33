package nfs

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/imagelock"
)

// Options say which file, on which server, and how to get at it.
type Options struct {
	// Host is the server: a name, or an address.
	Host string
	// Path is the file, with the export before it: the directory of the file is what is mounted, or one above that.
	Path string
	// UID and GID are who we say that we are; nil = who we are.
	UID, GID *uint32
	// NFSPort, MountPort and LockPort are where the server's programs listen; 0 = its port mapper knows.
	NFSPort, MountPort, LockPort int
	// SynCount is how often a connection is tried by the kernel before it gives up (TCP_SYNCNT); 0 = as it sees fit.
	SynCount int
	// Connections is how many there are at most; 0 = connectionsDefault.
	Connections int
	// Timeout is how long a request waits for a server that does not answer before it fails; 0 = for ever.
	Timeout time.Duration
	// ReadOnly is to open the file for reading.
	ReadOnly bool
	// Locking says whether image locks are taken. ForceShare takes none and heeds none; only with ReadOnly.
	Locking    imagelock.Mode
	ForceShare bool
	// ShareRW lets others write the file at the same time. Grows says that whoever opens the file makes it longer, which others have to bear.
	ShareRW, Grows bool
	// LockNotes is a directory of this host for notes of locks, by which those are known that a process left when it was killed; "" = none.
	LockNotes string
	// NoFlush has flush and FUA do nothing. Writethrough gives every write FUA.
	NoFlush, Writethrough bool
	// Guard is asked about what a write would put into the first 512 bytes of the disk; an error refuses the write. It is for disks whose format was
	// guessed, which are written in whole sectors then.
	Guard func(block0 []byte) error
	// OnHealth is told when the server stops answering, and when it answers again, on the loop; it does not block. May be nil.
	OnHealth func(Health)
	// Warn is told, in one line each, what was left out or worked around. May be nil.
	Warn func(string)
}

// Limits of options.
const (
	// ConnectionsMax: more than a few only cost memory.
	ConnectionsMax = 16
	// connectionsDefault: a server reads the calls of one connection one after the other, and hands its replies over in turn. Those beyond the first
	// are made when there are calls enough.
	connectionsDefault = 4
	// timeoutMax is what fits into a timer with room to spare.
	timeoutMax = 365 * 24 * time.Hour
	// synCountMax is the kernel's.
	synCountMax = 127
)

// check refuses what cannot be.
func (o *Options) check() error {
	switch {
	case o.Host == "":
		return errors.New("no server; write nfs://HOST/EXPORT/FILE")
	case strings.ContainsAny(o.Host, "[]"):
		return fmt.Errorf("server %q: brackets are for URLs; write the address without them", o.Host)
	case !strings.HasPrefix(o.Path, "/") || strings.HasSuffix(o.Path, "/") || o.Path == "/":
		return fmt.Errorf("path %q: it has to begin with a slash and to end in the name of a file", o.Path)
	case strings.ContainsRune(o.Path, 0):
		return fmt.Errorf("path %q has a zero byte in it", o.Path)
	case len(o.Path) > wire.PathBytesMax:
		return fmt.Errorf("the path has %d bytes; the protocol allows %d", len(o.Path), wire.PathBytesMax)
	case o.NFSPort < 0 || o.NFSPort > 65535:
		return fmt.Errorf("nfsport=%d: give 1 to 65535", o.NFSPort)
	case o.MountPort < 0 || o.MountPort > 65535:
		return fmt.Errorf("mountport=%d: give 1 to 65535", o.MountPort)
	case o.LockPort < 0 || o.LockPort > 65535:
		return fmt.Errorf("nlmport=%d: give 1 to 65535", o.LockPort)
	case !o.Locking.Known():
		return errors.New("locking: give auto, on or off")
	case o.ForceShare && !o.ReadOnly:
		return errors.New("force-share=on can only be used with read-only images")
	case o.SynCount < 0 || o.SynCount > synCountMax:
		return fmt.Errorf("tcp-syn-count=%d: give 1 to %d", o.SynCount, synCountMax)
	case o.Connections < 0 || o.Connections > ConnectionsMax:
		return fmt.Errorf("connections=%d: give 1 to %d", o.Connections, ConnectionsMax)
	case o.Timeout < 0 || o.Timeout > timeoutMax:
		return fmt.Errorf("timeout=%v: give seconds, or 0 to wait for ever", o.Timeout.Seconds())
	}
	for _, name := range strings.Split(o.Path[1:], "/") {
		if len(name) > wire.NameBytesMax {
			return fmt.Errorf("the name %.20q... in the path has %d bytes; servers take %d", name, len(name), wire.NameBytesMax)
		}
	}
	return nil
}

// URL is the name by which the file can be opened again.
func (o *Options) URL() string {
	u := url.URL{Scheme: "nfs", Host: o.Host, Path: o.Path}
	if strings.Contains(o.Host, ":") {
		u.Host = "[" + o.Host + "]"
	}
	var query []string
	add := func(key string, value uint64, has bool) {
		if has {
			query = append(query, key+"="+strconv.FormatUint(value, 10))
		}
	}
	if o.UID != nil {
		add("uid", uint64(*o.UID), true)
	}
	if o.GID != nil {
		add("gid", uint64(*o.GID), true)
	}
	add("nfsport", uint64(o.NFSPort), o.NFSPort != 0)
	add("mountport", uint64(o.MountPort), o.MountPort != 0)
	add("nlmport", uint64(o.LockPort), o.LockPort != 0)
	if o.Locking != imagelock.Auto {
		query = append(query, "locking="+o.Locking.String())
	}
	add("tcp-syncnt", uint64(o.SynCount), o.SynCount != 0)
	add("connections", uint64(o.Connections), o.Connections != 0)
	add("timeout", uint64(o.Timeout/time.Second), o.Timeout >= time.Second)
	u.RawQuery = strings.Join(query, "&")
	return u.String()
}

// split cuts the path into the directory that is mounted first and the file's name.
func split(p string) (dir, name string) {
	dir, name = path.Split(path.Clean(p))
	if dir != "/" {
		dir = strings.TrimSuffix(dir, "/")
	}
	return dir, name
}

// credential is who we say that we are.
func (o *Options) credential() []byte {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	var groups []uint32
	if o.UID == nil && o.GID == nil {
		all, _ := os.Getgroups()
		for _, g := range all {
			groups = append(groups, uint32(g))
		}
	}
	if o.UID != nil {
		uid = *o.UID
	}
	if o.GID != nil {
		gid = *o.GID
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "localhost"
	}
	return wire.AuthSys(machine, uid, gid, groups)
}

func (o *Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}
