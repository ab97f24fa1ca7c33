package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Storage is what is underneath a server.
type Storage string

// The storages.
const (
	Cached Storage = "cached" // a file through the page cache
	Direct Storage = "direct" // the same file with O_DIRECT
	Null   Storage = "null"   // nothing: reads are zeroes, writes are gone
	Qcow2  Storage = "qcow2"  // a qcow2 image through the page cache
	NFS    Storage = "nfs"    // the file of Cached, by way of an NFS server on this machine
)

// Setup is what a server is to serve.
type Setup struct {
	Storage   Storage
	File      string // of all but Null; a URL for NFS
	SizeBytes int64
	Dir       string // for the socket, the log and what else the server needs
	Programs  Programs

	L2CacheBytes int64 // of Qcow2; 0 = the server's default
}

// Programs are the executables that are not found on PATH.
type Programs struct {
	Ours  string // the server under test
	GoNBD string // internal/bench/gonbd
	Bench string // this program, for its own dummy server

	Revisions map[string]string // the server under test of other revisions of this repository
}

func (s Setup) socket() string  { return filepath.Join(s.Dir, "nbd.sock") }
func (s Setup) pidFile() string { return filepath.Join(s.Dir, "pid") }
func (s Setup) size() string    { return strconv.FormatInt(s.SizeBytes, 10) }

// Kind is one server, or one way to run it.
type Kind struct {
	Name    string
	Program string   // what has to be on PATH; empty: we build it
	Version []string // command that prints its version
	Direct  bool     // there is no NBD server: the client speaks to the server of NFS itself
	Ours    bool     // the server under test, which is compared
	Peer    bool     // one of those it is compared with
	Default bool     // measured unless the user chooses

	Revision   string // of this repository; empty: the one at hand
	RevisionOf string // the name of the kind that is this one of the revision at hand

	export      string // name of the export
	daemonizes  bool   // it leaves the process we start, and writes a pid file
	storages    []Storage
	commandLine func(Setup) ([]string, error)
}

// Serves reports whether the server can have that storage.
func (k Kind) Serves(storage Storage) bool {
	for _, s := range k.storages {
		if s == storage {
			return true
		}
	}
	return false
}

const exportOfNBDServer = "bench" // nbd-server has no default export

var (
	everything = []Storage{Cached, Direct, Null, Qcow2, NFS}
	local      = []Storage{Cached, Direct, Null, Qcow2}
	pageCache  = []Storage{Cached}       // no O_DIRECT, no null backend
	noDirect   = []Storage{Cached, Null} // no O_DIRECT
)

// Known lists the servers in the order they are shown.
func Known() []Kind {
	return []Kind{
		{Name: "nbd-dataplane", Ours: true, Default: true, storages: everything, commandLine: ours("io_uring")},
		{Name: "nbd-dataplane-threads", Ours: true, storages: local, commandLine: ours("threads")},
		{Name: "qemu-nbd", Program: "qemu-nbd", Version: []string{"qemu-nbd", "--version"}, Peer: true, Default: true, storages: everything, commandLine: qemu("io_uring")},
		{Name: "qemu-nbd-threads", Program: "qemu-nbd", Peer: true, Default: true, storages: []Storage{Cached, Direct, Qcow2}, commandLine: qemu("threads")},
		{Name: "qemu-storage-daemon", Program: "qemu-storage-daemon", Version: []string{"qemu-storage-daemon", "--version"}, Peer: true, Default: true, storages: []Storage{Qcow2}, commandLine: storageDaemon, export: nodeOfStorageDaemon},
		{Name: "nbdkit", Program: "nbdkit", Version: []string{"nbdkit", "--version"}, Peer: true, Default: true, storages: noDirect, commandLine: nbdkit},
		{Name: "nbd-server", Program: "nbd-server", Version: []string{"nbd-server", "-V"}, Peer: true, Default: true, storages: pageCache, commandLine: nbdServer, export: exportOfNBDServer, daemonizes: true},
		{Name: "go-nbd", Peer: true, Default: true, storages: noDirect, commandLine: goNBD},
		{Name: "ceiling", storages: []Storage{Null}, commandLine: ceiling},
		{Name: "floor", storages: []Storage{Cached, Null, Qcow2}, commandLine: floor},
		{Name: "nfs-direct", Direct: true, storages: []Storage{NFS}},
		{Name: "nfs-relay", storages: []Storage{NFS}, commandLine: relay},
	}
}

func cacheMode(s Setup) string {
	if s.Storage == Direct {
		return "none"
	}
	return "writeback"
}

// ours is the command line of the server under test.
func ours(aio string) func(Setup) ([]string, error) {
	return func(s Setup) ([]string, error) {
		if s.Storage == Qcow2 {
			return []string{s.Programs.Ours, "serve", "-t", "-e", "0", "-k", s.socket(), "--image-opts", s.imageOptions(aio)}, nil
		}
		file := s.File
		if s.Storage == NFS {
			return []string{s.Programs.Ours, "serve", "-f", "raw", "-t", "-e", "0", "-k", s.socket(), file}, nil
		}
		if s.Storage == Null {
			file = "null-co://?size=" + s.size()
		}
		return []string{s.Programs.Ours, "serve", "-f", "raw", "-t", "-e", "0", "-k", s.socket(),
			"--cache", cacheMode(s), "--aio", aio, file}, nil
	}
}

func qemu(aio string) func(Setup) ([]string, error) {
	return func(s Setup) ([]string, error) {
		argv := []string{"qemu-nbd", "-t", "-e", "0", "-k", s.socket()}
		if s.Storage == Null {
			return append(argv, "--image-opts", "driver=null-co,size="+s.size()), nil
		}
		if s.Storage == Qcow2 {
			return append(argv, "--image-opts", s.imageOptions(aio)), nil
		}
		if s.Storage == NFS {
			return append(argv, "-f", "raw", s.File), nil
		}
		return append(argv, "-f", "raw", "--cache", cacheMode(s), "--aio", aio, s.File), nil
	}
}

func nbdkit(s Setup) ([]string, error) {
	argv := []string{"nbdkit", "-f", "-U", s.socket()}
	if s.Storage == Null {
		return append(argv, "null", "size="+s.size()), nil
	}
	return append(argv, "file", s.File), nil
}

// nbdServer writes the configuration that nbd-server insists on. It has one mode that
// stays in the foreground, but that serves a single connection.
func nbdServer(s Setup) ([]string, error) {
	config := filepath.Join(s.Dir, "nbd-server.conf")
	text := fmt.Sprintf("[generic]\n\tunixsock = %s\n[%s]\n\texportname = %s\n\tflush = true\n\tfua = true\n",
		s.socket(), exportOfNBDServer, s.File)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configuring nbd-server: %w", err)
	}
	return []string{"nbd-server", "-C", config, "-p", s.pidFile()}, nil
}

func goNBD(s Setup) ([]string, error) {
	argv := []string{s.Programs.GoNBD, "-socket", s.socket()}
	if s.Storage == Null {
		return append(argv, "-null", s.size()), nil
	}
	return append(argv, s.File), nil
}

// ceiling is the dummy server of this program: what the client can do at most.
func ceiling(s Setup) ([]string, error) {
	return []string{s.Programs.Bench, "dummy", "--socket", s.socket(), "--size", s.size()}, nil
}

// floor is what an NBD server costs at least.
func floor(s Setup) ([]string, error) {
	return []string{s.Programs.Bench, "least", "--socket", s.socket(), "--size", s.size()}, nil
}

// relay is what an NBD server in front of a server of NFS costs at least.
func relay(s Setup) ([]string, error) {
	return []string{s.Programs.Bench, "relay", "--socket", s.socket(), s.File}, nil
}
