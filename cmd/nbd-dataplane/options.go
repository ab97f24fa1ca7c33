package main

import (
	"time"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/nbd"
)

// door is the way by which the program was entered.
type door uint8

const (
	doorServe  door = iota // nbd-dataplane serve, list
	doorQEMU               // qemu-nbd
	doorDaemon             // nbd-dataplane daemon
	doorQSD                // qemu-storage-daemon
)

// options are the command line, read but not yet checked as a whole.
type options struct {
	door     door
	calledAs string // argv[0], at QEMU's door
	// given holds the long names of the options that were on the command line.
	given map[string]bool

	// Where to listen, or for --list where to connect.
	port   string
	bind   string
	socket string // "@name" is an abstract one
	vsock  vsockAddress

	// What is offered to whom.
	shared          int // clients at once; 0 = unlimited
	persistent      bool
	exitLast        bool
	exportName      string
	description     string
	allocationDepth bool
	bitmaps         []string // the last one first, as qemu-nbd lists them
	readOnly        bool
	onStop          string        // restart, retire; empty = restart
	stopTimeout     time.Duration // 0 = no limit
	remember        string        // file of what was offered; empty = none
	allowLess       bool

	// The image.
	files        []string
	format       string // empty = find out
	imageOpts    bool
	offset       uint64
	cache        raw.Cache
	aio          raw.AIO
	discard      raw.Discard
	detectZeroes raw.DetectZeroes
	mapping      raw.Map
	createBytes  int64
	// createOptions are options of the format of what is created.
	createOptions []string
	overlay       bool           // all writes go to a temporary file
	showSnapshot  *snapshotNamed // nil = the disk as it is

	// Security.
	objects         []object
	tlsCreds        string
	tlsAuthz        string
	tlsHostname     string
	tlsCertificates string
	tlsVerifyPeer   bool
	tlsMode         string // off, on, require; empty = require if there are certificates
	selinuxLabel    string

	// The process.
	list      bool
	fork      bool
	pidFile   string
	verbose   bool
	printURI  bool
	run       string
	control   string // socket of the monitor; "" = there is none
	logLevel  string
	logFormat string

	// The engine, and limits. 0 takes the default of the package concerned.
	ioThreads        int
	workers          int
	pollMax          time.Duration
	handshakeTimeout time.Duration
	connectionsMax   int
	memoryLimit      int64
	exportMemory     int64
	connectionMemory int64
}

// defaultsOf returns the options of an empty command line. Our own door differs from qemu-nbd in four ways: it listens
// on the loopback address, it stays when the last client leaves, it serves several files at once, which goes with
// any number of clients, and it does not wait for ever for its storage when it stops.
func defaultsOf(d door) *options {
	o := &options{
		door: d, given: map[string]bool{},
		port: defaultPort, bind: "127.0.0.1", persistent: true,
		logLevel: "info",
	}
	if d == doorQEMU {
		o.bind, o.shared, o.persistent = "0.0.0.0", 1, false
	} else {
		o.stopTimeout = stopTimeoutDefault
	}
	return o
}

// defaultPort is IANA's for NBD.
const defaultPort = "10809"

// exitsAfterLast says that the server ends with its last client.
func (o *options) exitsAfterLast() bool { return !o.persistent || o.exitLast }

// farewell is what clients meet at the end of the server.
func (o *options) farewell() nbd.Farewell {
	if o.onStop == "retire" {
		return nbd.FarewellRetire
	}
	return nbd.FarewellRestart
}

// engine is the AioContext's engine for --aio.
func (o *options) engine() blockcore.EngineKind {
	switch o.aio {
	case raw.AIOURing, raw.AIONative:
		return blockcore.EngineURing
	case raw.AIOThreads:
		return blockcore.EngineThreads
	}
	return blockcore.EngineAuto
}
