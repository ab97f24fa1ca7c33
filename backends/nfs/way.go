package nfs

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strings"

	"nbd-dataplane/backends/nfs/wire"
)

// way is how far a walker has got. What is in front of the first ".." is mounted, as far as the server lets it be; from there on every name is looked up, ".." too: only the
// server knows what is above a directory, since it may have followed links of its own to the one that was mounted.
type way struct {
	path  string      // where it begins
	at    wire.Handle // the directory that was reached; nil = none was
	where string      // its name, as far as it is known
	names []string    // that are still to be gone; the last one is the file's
}

// start has it begin anew.
func (y *way) start(p string) { *y = way{path: p} }

// behind returns p with what is still to be gone behind it.
func (y *way) behind(p string) string { return p + "/" + strings.Join(y.names, "/") }

// mountable returns the directory that is to be mounted, and the names behind it.
func (y *way) mountable() (top string, rest []string) {
	names := namesOf(y.path)
	for len(names) > 1 && names[0] == ".." {
		names = names[1:] // nothing is above the root
	}
	n := slices.Index(names, "..")
	if n < 0 {
		n = len(names) - 1
	}
	return "/" + path.Join(names[:n]...), names[n:]
}

// namesOf cuts a path into names, at least one.
func namesOf(p string) []string {
	names := slices.DeleteFunc(strings.Split(p, "/"), func(name string) bool { return name == "" || name == "." })
	if len(names) == 0 {
		return []string{"."}
	}
	return names
}

// atDirectory begins what is being done when a directory above the file cannot be had.
const atDirectory = "look up the directory "

// directory goes to the directory of the file, and leaves a connection to the NFS program.
func (w *walker) directory() (dir wire.Handle, name string, err error) {
	for {
		if w.at == nil {
			err = w.enter()
		}
		if err == nil && len(w.names) == 1 {
			return w.at, w.names[0], nil
		}
		if err == nil {
			err = w.step()
		}
		if err != nil {
			return nil, "", err
		}
	}
}

// enter mounts the directory of the file, or the nearest one above it that the server lets be mounted.
func (w *walker) enter() error {
	top, rest := w.mountable()
	w.doing = "mount " + top + w.via
	at, below, err := w.mountNear(top)
	if isStatus(err) && slices.Contains(rest, "..") {
		w.start(path.Clean(w.path)) // what is outside of all exports has names, and nothing else
		return w.enter()
	}
	if err == nil {
		err = w.connect()
	}
	if err != nil {
		return err
	}
	for range below {
		top = path.Dir(top)
	}
	w.at, w.where, w.names = at, top, append(below, rest...)
	return nil
}

// step goes one name further, or to where a link says.
func (w *walker) step() error {
	name := w.names[0]
	found, err := w.lookup(w.at, name)
	if name == ".." && (err == nil && bytes.Equal(found.Handle, w.at) || isStatus(err)) {
		w.above()
		return nil
	}
	if err != nil {
		w.doing = atDirectory + name + w.via
		return err
	}
	w.names = w.names[1:]
	next := path.Join(w.where, name)
	followed, err := w.follow(&found, next)
	if err == nil && !followed {
		w.at, w.where = found.Handle, next
	}
	return err
}

// above goes up where the server does not, as from the root of an export: by name, perhaps to another one.
func (w *walker) above() {
	up := w.where
	for len(w.names) > 1 && w.names[0] == ".." {
		up, w.names = path.Dir(up), w.names[1:]
	}
	w.start(w.behind(up))
}

// isStatus reports whether the server has answered that.
func isStatus(err error) bool {
	_, is := errors.AsType[*wire.StatusError](err)
	return is
}
