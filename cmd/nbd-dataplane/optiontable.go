package main

// option is one row of the table: everything the doors need to know to take it, explain it and store it.
type option struct {
	long  string
	short byte   // 0 = none
	arg   string // what its argument is called; empty = it takes none
	group group
	door  doors
	help  string
	set   func(o *options, value string) error
	// values are what shell completion offers; "FILE" and "DIR" stand for names of such.
	values []string
}

// doors say where an option is known.
type doors uint8

const (
	both doors = iota
	ownOnly
	qemuOnly
)

// knownAt says that door d takes the option.
func (p *option) knownAt(d door) bool {
	return p.door == both || (p.door == qemuOnly) == (d == doorQEMU)
}

// group is a heading of the help.
type group uint8

const (
	groupGeneral group = iota
	groupConnection
	groupExport
	groupImage
	groupTLS
	groupProcess
	groupLimits
	groupRefused
)

func (g group) String() string {
	return [...]string{
		"General", "Where to listen", "What clients see", "The image and how to use it", "TLS and who may connect",
		"The process", "Engine and limits", "Known from qemu-nbd, not available yet",
	}[g]
}

// optionTable holds the options in the order of qemu-nbd's own table, which decides in what order it lists the
// possibilities of an ambiguous abbreviation; ours follow.
var optionTable = []option{
	{long: "help", short: 'h', group: groupGeneral, help: "show this help and exit", set: setHelp},
	{long: "version", short: 'V', group: groupGeneral, help: "show the version and exit", set: setVersion},
	{long: "bind", short: 'b', arg: "ADDR", group: groupConnection, help: "listen on this address or host name (default %bind%)", set: setBind},
	{long: "port", short: 'p', arg: "PORT", group: groupConnection, help: "listen on this TCP port (default 10809)", set: setPort},
	{long: "socket", short: 'k', arg: "PATH", group: groupConnection, help: "listen on a unix socket, by absolute path%abstract%", set: setSocket, values: []string{"FILE"}},
	{long: "offset", short: 'o', arg: "BYTES", group: groupImage, help: "let the disk begin this far into the image", set: setOffset},
	{long: "read-only", short: 'r', group: groupExport, help: "refuse every write", set: setReadOnly},
	{long: "allocation-depth", short: 'A', group: groupExport, help: "offer the metadata context qemu:allocation-depth", set: setAllocationDepth},
	{long: "bitmap", short: 'B', arg: "NAME", group: groupExport, help: "offer the metadata context qemu:dirty-bitmap:NAME; may be repeated", set: setBitmap},
	{long: "connect", short: 'c', arg: "DEV", group: groupRefused, help: "attach a kernel NBD device", set: refuse("connect", 'c', "this program does not drive kernel NBD devices yet", "serve with -k PATH and attach with 'nbd-client -unix PATH DEV'")},
	{long: "disconnect", short: 'd', group: groupRefused, help: "detach a kernel NBD device", set: refuse("disconnect", 'd', "this program does not drive kernel NBD devices yet", "detach with 'nbd-client -d DEV'")},
	{long: "list", short: 'L', group: groupGeneral, help: "list the exports of a server and exit", set: setList},
	{long: "snapshot", short: 's', group: groupImage, help: "keep what is written in a temporary file, which goes with the server; the image stays as it is", set: setSnapshot},
	{long: "load-snapshot", short: 'l', arg: "SNAPSHOT", group: groupImage, help: "serve an internal snapshot of a qcow2 image, read-only: its id or name, or snapshot.id=ID,snapshot.name=NAME", set: setLoadSnapshot},
	{long: "nocache", short: 'n', group: groupImage, help: "the same as --cache=none", set: setNoCache},
	{long: "cache", arg: "MODE", group: groupImage, help: "caching by the host: writeback (default), none, writethrough, directsync, unsafe", set: setCache, values: []string{"writeback", "none", "writethrough", "directsync", "unsafe"}},
	{long: "aio", arg: "ENGINE", group: groupImage, help: "who does the I/O: io_uring, threads or native (default: io_uring where the kernel allows it)", set: setAIO, values: []string{"io_uring", "threads", "native"}},
	{long: "discard", arg: "MODE", group: groupImage, help: "what a discard does: ignore (default) or unmap", set: setDiscard, values: []string{"ignore", "unmap"}},
	{long: "detect-zeroes", arg: "MODE", group: groupImage, help: "turn writes of zeroes into zeroing: off (default), on, or unmap, which needs --discard=unmap", set: setDetectZeroes, values: []string{"off", "on", "unmap"}},
	{long: "shared", short: 'e', arg: "N", group: groupExport, help: "serve N clients at once, others wait; 0 = any number (default %shared%)", set: setShared},
	{long: "format", short: 'f', arg: "FORMAT", group: groupImage, help: "format of the image, raw or qcow2 (default: found out)", set: setFormat, values: []string{"raw", "qcow2"}},
	{long: "persistent", short: 't', group: groupProcess, help: "stay when the last client has left%own-default%", set: setPersistent},
	{long: "verbose", short: 'v', group: groupProcess, help: "%verbose%", set: setVerbose},
	{long: "export-name", short: 'x', arg: "NAME", group: groupExport, help: "name of the export (default: empty)", set: setExportName},
	{long: "description", short: 'D', arg: "TEXT", group: groupExport, help: "describe the export to clients that list", set: setDescription},
	{long: "tls-creds", arg: "ID", group: groupTLS, help: "require TLS, with the credentials of the --object of this id", set: setTLSCreds},
	{long: "tls-hostname", arg: "HOST", group: groupTLS, help: "name to look for in the server's certificate (--list only)", set: setTLSHostname},
	{long: "tls-authz", arg: "ID", group: groupTLS, help: "admit clients by the authorization --object of this id", set: setTLSAuthz},
	{long: "trace", short: 'T', arg: "EVENTS", group: groupRefused, help: "trace events", set: refuse("trace", 'T', "this program has no trace events of QEMU's", "use --verbose, and -v with the client")},
	{long: "fork", group: groupProcess, help: "go to the background once clients can connect", set: setFork},
	{long: "pid-file", arg: "PATH", group: groupProcess, help: "write the process id here once clients can connect", set: setPIDFile, values: []string{"FILE"}},
	{long: "selinux-label", arg: "LABEL", group: groupRefused, help: "label the listening socket", set: refuse("selinux-label", 0, "this program does not set SELinux labels", "start it under the label with 'runcon'")},
	{long: "object", arg: "TYPE,id=ID,...", group: groupTLS, help: "define an object: secret, secret_keyring, tls-creds-x509, authz-simple, authz-list, authz-list-file", set: setObject},
	{long: "image-opts", group: groupImage, help: "FILE is a list of options: driver=raw,file.filename=PATH", set: setImageOpts},

	{long: "vsock", arg: "[CID:]PORT", group: groupConnection, door: ownOnly, help: "listen on a vsock port (for virtual machines)", set: setVsock},
	{long: "create", arg: "SIZE", group: groupImage, door: ownOnly, help: "make the image, with a disk of this size, if it is missing: qcow2 if -f says so or the name ends in .qcow2, and raw otherwise", set: setCreate},
	{long: "create-options", arg: "OPTIONS", group: groupImage, door: ownOnly, help: "with --create: options of the new image, as 'image create -o' has them, NAME=VALUE with commas in between", set: setCreateOptions},
	{long: "on-stop", arg: "WHAT", group: groupExport, door: ownOnly, help: "what clients meet when the server stops: restart (default), their connections are closed and they may come back; retire, errors for up to 10 seconds", set: setOnStop, values: []string{"restart", "retire"}},
	{long: "remember", arg: "FILE", group: groupExport, door: ownOnly, help: "keep in FILE what each export has offered, and refuse one that comes back with less: QEMU clients that reconnect would abort", set: setRemember, values: []string{"FILE"}},
	{long: "allow-less", group: groupExport, door: ownOnly, help: "with --remember: this time exports may come back with less, and that is what is remembered", set: setAllowLess},
	{long: "exit-last", group: groupProcess, door: ownOnly, help: "stop when the last client has left", set: setExitLast},
	{long: "print-uri", group: groupProcess, door: ownOnly, help: "print the URI of every export to standard output", set: setPrintURI},
	{long: "control", arg: "PATH", group: groupProcess, door: ownOnly, help: "take commands (QMP, 'nbd-dataplane ctl') on this unix socket", set: setControl, values: []string{"FILE"}},
	{long: "run", arg: "CMD", group: groupProcess, door: ownOnly, help: "serve while the shell command CMD runs, with $uri in its environment, and exit with its status", set: setRun},
	{long: "log-level", arg: "LEVEL", group: groupProcess, door: ownOnly, help: "what to log: debug, info (default), warn, error, off", set: setLogLevel, values: []string{"debug", "info", "warn", "error", "off"}},
	{long: "log-format", arg: "FORMAT", group: groupProcess, door: ownOnly, help: "text or json (default: text on a terminal, json elsewhere)", set: setLogFormat, values: []string{"text", "json"}},
	{long: "tls-certificates", arg: "DIR", group: groupTLS, door: ownOnly, help: "use TLS, with ca-cert.pem, server-cert.pem and server-key.pem from DIR", set: setTLSCertificates, values: []string{"DIR"}},
	{long: "tls-verify-peer", group: groupTLS, door: ownOnly, help: "with --tls-certificates: clients need a certificate of the same authority", set: setTLSVerifyPeer},
	{long: "tls", arg: "MODE", group: groupTLS, door: ownOnly, help: "off, on (clients may use it) or require (default with certificates)", set: setTLSMode, values: []string{"off", "on", "require"}},
	{long: "map", arg: "MODE", group: groupImage, door: ownOnly, help: "on: hits of the page cache are served through a mapping of the file, which then counts as resident memory; off: by system calls; auto (default): on as long as all files served lie on one device; always: whether it pays or not, for tests", set: setMap, values: []string{"auto", "on", "off", "always"}},
	{long: "iothreads", arg: "N", group: groupLimits, door: ownOnly, help: "event loops to spread the exports over (default: one per export, up to the number of CPUs)", set: setIOThreads},
	{long: "poll-max-ns", arg: "NS", group: groupLimits, door: ownOnly, help: "how long a loop looks for work at most before it sleeps; 0 = not at all", set: setPollMax},
	{long: "workers", arg: "N", group: groupLimits, door: ownOnly, help: "threads per loop for what would block it (default 64)", set: setWorkers},
	{long: "handshake-timeout", arg: "SECONDS", group: groupLimits, door: ownOnly, help: "time for a client to choose an export (default 10)", set: setHandshakeTimeout},
	{long: "stop-timeout", arg: "SECONDS", group: groupLimits, door: ownOnly, help: "time for an orderly stop; then the process ends with status 1 and says what it abandoned (default 60)", set: setStopTimeout},
	{long: "max-connections", arg: "N", group: groupLimits, door: ownOnly, help: "connections of the server, those in the handshake included; others wait (default 1024)", set: setConnectionsMax},
	{long: "memory-limit", arg: "SIZE", group: groupLimits, door: ownOnly, help: "request data held in memory by the process (default 512M)", set: setMemoryLimit},
	{long: "export-memory-limit", arg: "SIZE", group: groupLimits, door: ownOnly, help: "request data held for one export (default 256M)", set: setExportMemory},
	{long: "connection-memory-limit", arg: "SIZE", group: groupLimits, door: ownOnly, help: "request data held for one connection (default 32M)", set: setConnectionMemory},
}

// optionsAt returns the rows that a door takes, in the order of the table.
func optionsAt(d door) []*option {
	var rows []*option
	for n := range optionTable {
		if optionTable[n].knownAt(d) {
			rows = append(rows, &optionTable[n])
		}
	}
	return rows
}
