package nfs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"path"
	"strings"
	"syscall"
	"time"

	"nbd-dataplane/backends/nfs/wire"
)

// openMax is how long opening may take. A server that is down is an error then, also for those that would wait for it for ever later on.
const openMax = 30 * time.Second

// Limits of what a server says of itself.
const (
	// transferLeast is the shortest READ and WRITE that we take for meant.
	transferLeast = 512
	// transferMax is the longest that we send, whatever the server would take: what is longer is split, and goes on its way at once.
	transferMax = 1 << 20
)

// Open finds the file, and what its server can do. It blocks, so it is called on an ordinary goroutine.
func Open(o Options) (*File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openMax)
	defer cancel()
	if err := o.check(); err != nil {
		return nil, err
	}
	w := newWalker(ctx, &o)
	defer w.close()
	f, err := w.open()
	if err != nil {
		return nil, w.explain(err)
	}
	return f, nil
}

// Create makes the file, so many bytes long, if it is not there, and reports whether it was made. It blocks.
func Create(o Options, sizeBytes int64) (made bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), openMax)
	defer cancel()
	if err := o.check(); err != nil {
		return false, err
	}
	w := newWalker(ctx, &o)
	defer w.close()
	made, err = w.create(sizeBytes)
	if err != nil {
		return false, w.explain(err)
	}
	return made, nil
}

// Remove takes a file away that Create has made. It blocks.
func Remove(o Options) error {
	ctx, cancel := context.WithTimeout(context.Background(), openMax)
	defer cancel()
	w := newWalker(ctx, &o)
	defer w.close()
	dir, name, err := w.directory()
	if err == nil {
		w.doing = "remove the file"
		err = w.nfs.nfs(ctx, wire.ProcRemove, wire.AppendLookup(nil, dir, name), wire.ParseSetattr)
	}
	if err != nil {
		return w.explain(err)
	}
	return nil
}

// walker finds the way from a server to a file.
type walker struct {
	ctx    context.Context
	o      *Options
	dialer *dialer
	nfs    *client // nil = not connected, or given away
	doing  string  // for errors
	way            // to the file
	links          // that were followed
}

func newWalker(ctx context.Context, o *Options) *walker {
	return &walker{ctx: ctx, o: o, dialer: newDialer(o), way: way{path: path.Clean(o.Path)}}
}

func (w *walker) close() {
	if w.nfs != nil {
		w.nfs.close()
	}
}

func (w *walker) open() (*File, error) {
	found, err := w.find()
	if err != nil {
		return nil, err
	}
	if err := w.inspect(&found); err != nil {
		return nil, err
	}
	sizes, err := w.sizes(found.Handle)
	if err != nil {
		return nil, err
	}
	if err := w.rights(found.Handle); err != nil {
		return nil, err
	}
	nlm, err := w.lock(&found)
	if err != nil {
		return nil, err
	}
	if err := w.settle(found.Handle); err != nil {
		nlm.release(unlockMax)
		return nil, err
	}
	fd, err := w.nfs.take()
	w.nfs = nil
	if err != nil {
		nlm.release(unlockMax)
		return nil, err
	}
	f := newFile(w.o, w.dialer, found, sizes, fd)
	f.guardBy(nlm)
	return f, nil
}

// committing is what is being done by settle, for errors.
const committing = "commit what was written before"

// settle makes durable what others have written to a file that is to be written, as a process of ours that was killed: a FLUSH commits only what this one writes, and a client
// who comes back to the next process expects of it what the last one has acknowledged.
func (w *walker) settle(h wire.Handle) error {
	if w.o.ReadOnly || w.o.NoFlush {
		return nil
	}
	w.doing = committing
	w.nfs.patience = openMax // there may be as much as the memory of the server holds
	return w.nfs.nfs(w.ctx, wire.ProcCommit, wire.AppendCommit(nil, h), func(b []byte) error {
		_, err := wire.ParseCommit(b)
		return err
	})
}

// lock takes the image locks. What the file is like is what it is like from then on.
func (w *walker) lock(found *wire.Found) (*fileLocks, error) {
	nlm, err := w.acquireLocks(found.Handle, w.o.locks())
	if nlm == nil || err != nil {
		return nil, err
	}
	found.Known = false
	if err := w.inspect(found); err != nil {
		nlm.release(unlockMax)
		return nil, err
	}
	return nlm, nil
}

// mountNear mounts top, or the nearest directory above it.
func (w *walker) mountNear(top string) (at wire.Handle, below []string, err error) {
	conn, err := w.dialer.connectMount(w.ctx)
	if err != nil {
		return nil, nil, err
	}
	mount := newClient(w.ctx, conn, w.dialer.cred)
	defer mount.close()
	return w.mount(mount, top)
}

// connect connects to the NFS program, if that was not done.
func (w *walker) connect() error {
	if w.nfs != nil {
		return nil
	}
	w.doing = "connect to the NFS program"
	conn, err := w.dialer.connectNFS(w.ctx)
	if err == nil {
		w.nfs = newClient(w.ctx, conn, w.dialer.cred)
	}
	return err
}

// mount returns the handle of the nearest directory that can be mounted, and the names from there down to top. The error is that of top, which is
// what was asked for.
func (w *walker) mount(c *client, top string) (dir wire.Handle, below []string, err error) {
	var first error
	for at := top; ; {
		b, err := c.call(wire.ProgramMount, wire.MountMnt, wire.AppendMount(nil, at))
		if err != nil {
			return nil, nil, err
		}
		root, takes, err := wire.ParseMount(b)
		switch {
		case err == nil && !takes:
			return nil, nil, fmt.Errorf("the export %s does not take AUTH_SYS (sec=sys): %w", at, syscall.EACCES)
		case err == nil:
			return root, below, nil
		case errors.Is(err, wire.ErrMalformed):
			return nil, nil, err
		case first == nil:
			first = err
		}
		if at == "/" {
			return nil, nil, first
		}
		below = append([]string{path.Base(at)}, below...)
		at = path.Dir(at)
	}
}

func (w *walker) lookup(dir wire.Handle, name string) (found wire.Found, err error) {
	w.doing = "look up " + name + w.via
	err = w.nfs.nfs(w.ctx, wire.ProcLookup, wire.AppendLookup(nil, dir, name), func(b []byte) (err error) {
		found, err = wire.ParseLookup(b)
		return err
	})
	return found, err
}

// inspect refuses what is no disk.
func (w *walker) inspect(f *wire.Found) error {
	w.doing = "look at the file"
	if err := w.know(f); err != nil {
		return err
	}
	switch {
	case f.Attributes.Type != wire.TypeRegular:
		return fmt.Errorf("it is %v; give the path of a disk image: %w", f.Attributes.Type, syscall.EINVAL)
	case f.Attributes.SizeBytes > math.MaxInt64-sectorBytes:
		return fmt.Errorf("the file is said to be %d bytes long: %w", f.Attributes.SizeBytes, syscall.EFBIG)
	}
	return nil
}

// know asks for the attributes of what was found, if they were not told.
func (w *walker) know(f *wire.Found) error {
	if f.Known {
		return nil
	}
	err := w.nfs.nfs(w.ctx, wire.ProcGetattr, wire.AppendHandle(nil, f.Handle), func(b []byte) (err error) {
		f.Attributes, err = wire.ParseGetattr(b)
		return err
	})
	f.Known = err == nil
	return err
}

// sizes asks how long requests may be.
func (w *walker) sizes(h wire.Handle) (s wire.Sizes, err error) {
	w.doing = "ask for the server's limits"
	err = w.nfs.nfs(w.ctx, wire.ProcFsinfo, wire.AppendHandle(nil, h), func(b []byte) (err error) {
		s, err = wire.ParseFsinfo(b)
		return err
	})
	s.ReadMax = min(max(s.ReadMax, transferLeast), transferMax)
	s.WriteMax = min(max(s.WriteMax, transferLeast), transferMax)
	return s, err
}

// errReadOnly is the file's, not the server's.
var errReadOnly = fmt.Errorf("it may be read and not written: %w", syscall.EACCES)

// rights finds out whether the file may be read, and written.
func (w *walker) rights(h wire.Handle) error {
	w.doing = "ask for access"
	wants := uint32(wire.AccessRead)
	if !w.o.ReadOnly {
		wants |= wire.AccessModify | wire.AccessExtend
	}
	var has uint32
	err := w.nfs.nfs(w.ctx, wire.ProcAccess, wire.AppendAccess(nil, h, wants), func(b []byte) (err error) {
		has, err = wire.ParseAccess(b)
		return err
	})
	switch {
	case err != nil:
		return err
	case has&wire.AccessRead == 0:
		return fmt.Errorf("it may not be read: %w", syscall.EACCES)
	case wants&^has != 0 && w.onReadOnly(h):
		return fmt.Errorf("it may be read and not written: the export is a %w", syscall.EROFS)
	case wants&^has != 0:
		return errReadOnly
	}
	return nil
}

// onReadOnly reports whether nothing of the file system may be written: ACCESS does not say why. A WRITE of nothing changes nothing and is refused for the same reason as
// another (RFC 1813 3.3.7).
func (w *walker) onReadOnly(h wire.Handle) bool {
	err := w.nfs.nfs(w.ctx, wire.ProcWrite, wire.AppendWrite(nil, h, 0, 0, wire.Unstable), func(b []byte) error {
		_, err := wire.ParseWrite(b)
		return err
	})
	return errors.Is(err, syscall.EROFS)
}

// making is what is being done by create, for errors.
const making = "make the file"

// create makes the file unless it is there.
func (w *walker) create(sizeBytes int64) (made bool, err error) {
	dir, name, err := w.directory()
	if err != nil {
		return false, err
	}
	w.doing = making
	err = w.nfs.nfs(w.ctx, wire.ProcCreate, wire.AppendCreate(nil, dir, name, 0o644, uint64(sizeBytes)), func(b []byte) error {
		_, err := wire.ParseCreate(b)
		return err
	})
	if errors.Is(err, syscall.EEXIST) {
		return false, nil
	}
	return err == nil, err
}

// OpenError is why a file could not be opened: at which server, which file, what was tried, and what may help.
type OpenError struct {
	URL, Doing, Remedy string
	Err                error
}

func (e *OpenError) Error() string { return e.URL + ": " + e.Why() }

// Why is the error without the name of the file.
func (e *OpenError) Why() string {
	text := fmt.Sprintf("%s: %v", e.Doing, e.Err)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns the cause.
func (e *OpenError) Unwrap() error { return e.Err }

func (w *walker) explain(err error) error {
	cause := err
	if op, ok := errors.AsType[*net.OpError](err); ok && !strings.Contains(err.Error(), "port mapper") {
		cause = op.Err
	}
	return &OpenError{URL: w.o.URL(), Doing: w.doing, Remedy: w.remedy(err), Err: cause}
}

// remedy is what may help.
func (w *walker) remedy(err error) string {
	var dns *net.DNSError
	mounting := strings.HasPrefix(w.doing, "mount ")
	switch {
	case isLocked(err):
		return "stop the other one first; docs/nfs.md says what to do about a lock whose owner is gone"
	case w.doing == locking && errors.Is(err, syscall.EAGAIN):
		return "the server was restarted a short while ago and lets those that had locks have them first: try again in a minute"
	case w.doing == locking:
		return "see to the server's lock manager, or give locking=off if nobody else can write to the file"
	case errors.As(err, &dns):
		return "check the name of the server " + w.o.Host + ", or give its address"
	case errors.Is(err, syscall.ECONNREFUSED) && mounting && w.o.MountPort == 0:
		return "start the NFS server and its port mapper, or give nfsport= and mountport="
	case errors.Is(err, errNoPort):
		return "start the NFS server with version 3, or give nfsport= and mountport="
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start the NFS server on " + w.o.Host + ", or check the ports"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "check the network between this host and " + w.o.Host
	case w.doing == committing && (w.ctx.Err() != nil || isTimeout(err)):
		return "the server has much to bring to its disk, or that does not answer: try again, it goes on meanwhile"
	case w.ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "the server does not answer: check that it runs, and firewalls"
	case errors.Is(err, errReadOnly):
		return "change its mode, give another uid= and gid=, or open it read-only"
	case errors.Is(err, syscall.EROFS) && w.doing == making:
		return "let the server export it for writing, or give another directory"
	case errors.Is(err, syscall.EROFS):
		return "open it read-only, or let the server export it for writing"
	case errors.Is(err, syscall.EACCES) && mounting, errors.Is(err, syscall.EPERM) && mounting:
		return "allow this host in the server's list of exports"
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EXDEV):
		return "give the path of the file itself"
	case errors.Is(err, syscall.ENOENT) && mounting:
		return "check what the server exports (showmount -e " + w.o.Host + ")"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "change the mode of the file or of its directory, or give another uid= and gid="
	case errors.Is(err, syscall.ENOENT) && strings.HasPrefix(w.doing, atDirectory):
		return "make the directory first"
	case errors.Is(err, syscall.ENOENT):
		return "create the file first, or let --create=SIZE make it"
	case errors.Is(err, syscall.ESTALE):
		return "the directory was replaced on the server: try again"
	case errors.Is(err, syscall.EPROTONOSUPPORT):
		return "the server has to offer NFS version 3 over TCP"
	}
	return ""
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
