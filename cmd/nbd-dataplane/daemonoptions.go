package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// daemonStep is one option of the daemon that does something when its turn comes: what it refers to has to stand before it.
type daemonStep struct{ option, text, words string }

// daemonOptions are the daemon's command line.
type daemonOptions struct {
	door      door
	steps     []daemonStep // in the order given
	pidFile   string
	remember  string        // file of what was offered; empty = none
	stop      time.Duration // of an orderly stop; 0 = no limit
	daemonize bool
	help      bool
	kinds     string // what was asked for with help in the place of a kind
	version   bool
}

// daemonRow is an option of the daemon and its help.
type daemonRow struct{ long, short, arg, text string }

// daemonRows are the options at a door: qemu-storage-daemon has none of ours.
func daemonRows(d door) []daemonRow {
	if d != doorQSD {
		return daemonHelp
	}
	return slices.DeleteFunc(slices.Clone(daemonHelp), func(row daemonRow) bool { return row.long == ownRemember || row.long == ownStopTimeout })
}

// daemonHelp is what each option is, in the order of the help. Those with an argument are steps, but for pidfile, remember, stop-timeout and trace.
var daemonHelp = []daemonRow{
	{"blockdev", "", "[driver=]DRIVER,node-name=NAME[,OPTION=VALUE...]", "make a node; the drivers are " + strings.Join(driverNames(), ", ")},
	{"chardev", "", "socket,id=ID,path=PATH,server=on,wait=off | stdio,id=ID | pipe,id=ID,path=PATH | pty,id=ID | serial,id=ID,path=PATH | file,id=ID,path=PATH", "make a way for a monitor to come in"},
	{"monitor", "", "[chardev=]ID[,mode=control][,pretty=on|off]", "take QMP commands there"},
	{"nbd-server", "", "addr.type=unix,addr.path=PATH | addr.type=inet,addr.host=HOST,addr.port=PORT", "start the NBD server ([,tls-creds=ID][,tls-authz=ID][,max-connections=N])"},
	{"export", "", "[type=]nbd,id=ID,node-name=NAME[,name=NAME][,writable=on|off][,iothread=ID]", "export a node"},
	{"object", "", "TYPE,id=ID[,OPTION=VALUE...]", "make an object, or with TYPE,help list its options: iothread, throttle-group, secret, secret_keyring, tls-creds-x509, authz-simple, authz-list, authz-list-file"},
	{"pidfile", "", "PATH", "write the process id here once everything is there"},
	{"daemonize", "", "", "go to the background once everything is there"},
	{ownRemember, "", "FILE", "keep in FILE what each export has offered, and refuse one that comes back with less, unless it has x-allow-less=on"},
	{ownStopTimeout, "", "SECONDS", "time for an orderly stop; then the process ends with status 1 and says what it abandoned (default 60)"},
	{"trace", "T", "EVENTS", ""},
	{"help", "h", "", "show this help and exit"},
	{"version", "V", "", "show the version and exit"},
}

// The options that qemu-storage-daemon has not.
const (
	ownRemember    = "remember"
	ownStopTimeout = "stop-timeout"
)

// parseDaemon reads the daemon's command line as getopt_long(3) does for QEMU, at both doors.
func parseDaemon(d door, args []string) (*daemonOptions, error) {
	o := &daemonOptions{door: d}
	if d == doorDaemon {
		o.stop = stopTimeoutDefault
	}
	g := &getopt{o: &options{given: map[string]bool{}}, args: args, wrong: func(text string) error { return errors.New(text) }}
	for _, row := range daemonRows(d) {
		letter := byte(0)
		if row.short != "" {
			letter = row.short[0]
		}
		g.rows = append(g.rows, &option{long: row.long, short: letter, arg: row.arg, set: func(_ *options, v string) error {
			return o.set(row.long, v, g.words())
		}})
	}
	for len(g.args) > 0 {
		switch err := g.next(); {
		case errors.Is(err, errHelp):
			o.help = o.kinds == ""
			return o, nil
		case errors.Is(err, errVersion):
			o.version = true
			return o, nil
		case err != nil:
			return o, err
		case len(g.o.files) > 0:
			return o, fmt.Errorf("%s: Unexpected argument", g.o.files[0])
		}
	}
	return o, nil
}

// set applies one option, which was given in these words.
func (o *daemonOptions) set(name, value, words string) error {
	switch name {
	case "pidfile":
		o.pidFile = value
	case ownRemember:
		if value == "" {
			return errors.New("--remember: name the file, as in --remember /var/lib/nbd/offers")
		}
		o.remember = lasting(value)
	case ownStopTimeout:
		return setSeconds(name, value, &o.stop)
	case "daemonize":
		o.daemonize = true
	case "help":
		return errHelp
	case "version":
		return errVersion
	case "trace":
		return wrong("--trace: this program has no trace events of QEMU's; leave it out", "")
	default:
		help, err := helpOf(name, value, words)
		if err != nil || help != "" {
			o.kinds = help
			return cmp.Or(err, errHelp)
		}
		o.steps = append(o.steps, daemonStep{name, value, words})
	}
	return nil
}

// helpOf is the help that an option is asked for by its argument; "" = it is not.
func helpOf(name, argument, words string) (string, error) {
	if name == "object" {
		return objectHelp(argument), nil
	}
	if kind, _, _ := strings.Cut(argument, ","); !isHelp(kind) {
		return "", nil
	}
	if name != "chardev" {
		return "", fmt.Errorf("%s: Help is not available for this option", words)
	}
	kinds := slices.DeleteFunc(slices.Sorted(maps.Keys(chardevKinds)), func(kind string) bool { return kind == "tty" }) // the old name of serial
	return listing("Available chardev backend types: ", kinds), nil
}

// daemonUsage is the text of --help at a door, less its first lines.
func daemonUsage(d door) string {
	var b strings.Builder
	for _, row := range daemonRows(d) {
		if row.text == "" {
			continue
		}
		name := "--" + row.long
		if row.short != "" {
			name = "-" + row.short + ", " + name
		}
		fmt.Fprintf(&b, "  %s %s\n        %s\n", name, row.arg, row.text)
	}
	return b.String()
}
