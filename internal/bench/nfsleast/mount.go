package nfsleast

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path"
	"strconv"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/bench/blocking"
)

const (
	mountMax        = 10 * time.Second // to find the file
	mountReplyBytes = 64 << 10
)

// file is one of a server of NFS.
type file struct {
	// Immutable.
	host      string
	port      int
	handle    wire.Handle
	sizeBytes int64
}

// find looks a file up: nfs://HOST/DIRECTORY/FILE, where the directory is exported, and behind a question mark nfsport and mountport.
func find(uri string) (file, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "nfs" {
		return file{}, fmt.Errorf("%q: want nfs://HOST/DIRECTORY/FILE", uri)
	}
	f := file{host: u.Hostname()}
	if f.port, err = f.portOf(wire.ProgramNFS, u.Query().Get("nfsport")); err != nil {
		return f, err
	}
	at, err := f.portOf(wire.ProgramMount, u.Query().Get("mountport"))
	if err != nil {
		return f, err
	}
	results, err := f.once(at, wire.ProgramMount, wire.MountMnt, wire.AppendMount(nil, path.Dir(u.Path)))
	if err != nil {
		return f, err
	}
	root, _, err := wire.ParseMount(results)
	if err != nil {
		return f, fmt.Errorf("MOUNT: %w", err)
	}
	results, err = f.once(f.port, wire.ProgramNFS, uint32(wire.ProcLookup), wire.AppendLookup(nil, root, path.Base(u.Path)))
	if err != nil {
		return f, err
	}
	found, err := wire.ParseLookup(results)
	if err != nil {
		return f, fmt.Errorf("LOOKUP: %w", err)
	}
	f.handle, f.sizeBytes = found.Handle, int64(found.Attributes.SizeBytes)
	return f, nil
}

// portOf asks the port mapper, if nobody has said where a program is.
func (f file) portOf(p wire.Program, said string) (int, error) {
	if said != "" {
		return strconv.Atoi(said)
	}
	results, err := f.once(wire.PortPortmap, wire.ProgramPortmap, wire.PortmapGetport, wire.AppendGetport(nil, p))
	if err != nil {
		return 0, err
	}
	port, err := wire.ParseGetport(results)
	if err == nil && port == 0 {
		err = errors.New("the port mapper knows of no such program")
	}
	return int(port), err
}

// once makes one call on a connection of its own.
func (f file) once(port int, p wire.Program, proc uint32, args []byte) ([]byte, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(f.host, strconv.Itoa(port)), mountMax)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(mountMax)); err != nil {
		return nil, err
	}
	call := append(wire.AppendCall(nil, 1, p, proc, credential()), args...)
	wire.FinishCall(call, 0)
	if _, err := conn.Write(call); err != nil {
		return nil, err
	}
	mark := make([]byte, wire.MarkBytes)
	if _, err := io.ReadFull(conn, mark); err != nil {
		return nil, err
	}
	n, last := wire.Mark(mark)
	if !last || n > mountReplyBytes {
		return nil, wire.ErrMalformed
	}
	reply := make([]byte, n)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return nil, err
	}
	h, need, err := wire.ParseHead(reply)
	switch {
	case err != nil:
		return nil, err
	case need > 0:
		return nil, wire.ErrMalformed
	case h.Err != nil:
		return nil, h.Err
	}
	return reply[h.Bytes:], nil
}

func credential() []byte { return wire.AuthSys("bench", 0, 0, nil) }

// connect makes a connection for READ, WRITE and COMMIT, whose system calls block.
func (f file) connect() (fd int, err error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(f.host, strconv.Itoa(f.port)), mountMax)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	return blocking.Own(conn.(*net.TCPConn))
}

// template is a call to be made again and again, with another id and another place each time.
func (f file) template(proc wire.Proc, blockBytes int) []byte {
	call := wire.AppendCall(nil, 0, wire.ProgramNFS, uint32(proc), credential())
	behind := 0
	switch proc {
	case wire.ProcRead:
		call = wire.AppendRead(call, f.handle, 0, uint32(blockBytes))
	case wire.ProcWrite:
		call = wire.AppendWrite(call, f.handle, 0, uint32(blockBytes), wire.Unstable)
		behind = blockBytes + wire.Padding(blockBytes)
	default:
		call = wire.AppendCommit(call, f.handle)
	}
	wire.FinishCall(call, behind)
	return call
}

// place writes into a template of that procedure which call it is and where in the file.
func place(call []byte, proc wire.Proc, xid uint32, offset int64) {
	wire.SetXID(call, xid)
	switch proc {
	case wire.ProcRead: // behind the offset: count
		binary.BigEndian.PutUint64(call[len(call)-12:], uint64(offset))
	case wire.ProcWrite: // count, how, length
		binary.BigEndian.PutUint64(call[len(call)-20:], uint64(offset))
	}
}
