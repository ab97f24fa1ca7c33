package nfs

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"nbd-dataplane/backends/nfs/wire"
)

// linksMax bounds the symbolic links on the way to one file, so that those that lead to one another come to an end.
const linksMax = 10

// links are the symbolic links that were followed. A server tells only what is written in a link (RFC 1813 3.3.5); where that leads is for us to find. What begins with a slash is a path of the
// server's, as in the URL, and is mounted like it; anything else counts from the directory of the link. What is not exported cannot be mounted, and what
// lies in another file system than the link is taken for another export.
type links struct {
	followed int
	via      string // the last one, for errors
	fsid     uint64 // of it
}

// find looks the file up, wherever links lead.
func (w *walker) find() (found wire.Found, err error) {
	for {
		dir, name, err := w.directory()
		if err != nil {
			return found, err
		}
		if found, err = w.lookup(dir, name); err != nil {
			return found, err
		}
		w.names = nil
		again, err := w.follow(&found, path.Join(w.where, name))
		if err != nil {
			return found, err
		}
		if !again {
			return found, w.within(found)
		}
	}
}

// within refuses a file that a link has led to in another file system.
func (w *walker) within(found wire.Found) error {
	if w.followed == 0 || found.Attributes.FSID == w.fsid {
		return nil
	}
	return fmt.Errorf("a symbolic link leads out of the export: %w", syscall.EXDEV)
}

// follow has the way go on at what f says, if that is a link, at path link, and reports whether it is.
func (w *walker) follow(f *wire.Found, link string) (is bool, err error) {
	if err := w.know(f); err != nil || f.Attributes.Type != wire.TypeLink {
		return false, err
	}
	w.doing = "follow the symbolic link " + link
	if w.followed > 0 && f.Attributes.FSID != w.fsid {
		return false, w.within(*f)
	}
	if w.followed++; w.followed > linksMax {
		return false, fmt.Errorf("it is behind %d others: %w", linksMax, syscall.ELOOP)
	}
	var target string
	err = w.nfs.nfs(w.ctx, wire.ProcReadlink, wire.AppendHandle(nil, f.Handle), func(b []byte) (err error) {
		target, err = wire.ParseReadlink(b)
		return err
	})
	if err != nil {
		return false, err
	}
	if target == "" || strings.ContainsRune(target, 0) {
		return false, fmt.Errorf("it leads to %q: %w", target, syscall.ENOENT)
	}
	w.via, w.fsid = fmt.Sprintf(" (%s is a symbolic link to %q)", link, target), f.Attributes.FSID
	on := w.behind(target)
	switch {
	case !path.IsAbs(target):
		w.names = namesOf(on)
	case path.Clean(on) == "/":
		return false, fmt.Errorf("it leads to %q, which is a directory: %w", target, syscall.EISDIR)
	default:
		w.start(on)
	}
	return true, nil
}
