package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// daemonStep is one option of the daemon that does something when its turn comes: what it refers to has to stand before it.
type daemonStep struct{ option, text string }

// daemonOptions are the daemon's command line.
type daemonOptions struct {
	door      door
	steps     []daemonStep // in the order given
	pidFile   string
	daemonize bool
	help      bool
	version   bool
}

// daemonHelp is what each option is, in the order of the help. Those with an argument are steps, but for pidfile and trace.
var daemonHelp = []struct{ long, short, arg, text string }{
	{"blockdev", "", "[driver=]DRIVER,node-name=NAME[,OPTION=VALUE...]", "make a node: file, host_device, raw, null-co, throttle, copy-on-read, inject"},
	{"chardev", "", "socket,id=ID,path=PATH,server=on,wait=off | stdio,id=ID", "make a way for a monitor to come in"},
	{"monitor", "", "[chardev=]ID[,mode=control][,pretty=on|off]", "take QMP commands there"},
	{"nbd-server", "", "addr.type=unix,addr.path=PATH | addr.type=inet,addr.host=HOST,addr.port=PORT", "start the NBD server ([,tls-creds=ID][,tls-authz=ID][,max-connections=N])"},
	{"export", "", "[type=]nbd,id=ID,node-name=NAME[,name=NAME][,writable=on|off][,iothread=ID]", "export a node"},
	{"object", "", "TYPE,id=ID[,OPTION=VALUE...]", "make an object: iothread, throttle-group, tls-creds-x509, authz-simple, authz-list, authz-list-file"},
	{"pidfile", "", "PATH", "write the process id here once everything is there"},
	{"daemonize", "", "", "go to the background once everything is there"},
	{"trace", "T", "EVENTS", ""},
	{"help", "h", "", "show this help and exit"},
	{"version", "V", "", "show the version and exit"},
}

// daemonFlag is an option as pflag sees it.
type daemonFlag struct {
	o    *daemonOptions
	name string
}

// Set implements pflag.Value.
func (f *daemonFlag) Set(v string) error {
	if f.isSwitch() && v != noArgument {
		return fmt.Errorf("option '--%s' doesn't allow an argument", f.name)
	}
	switch f.name {
	case "pidfile":
		f.o.pidFile = v
	case "daemonize":
		f.o.daemonize = true
	case "help":
		f.o.help = true
	case "version":
		f.o.version = true
	case "trace":
		return wrong("--trace: this program has no trace events of QEMU's; leave it out", "")
	default:
		f.o.steps = append(f.o.steps, daemonStep{f.name, v})
	}
	return nil
}

// isSwitch reports whether the option takes no argument.
func (f *daemonFlag) isSwitch() bool {
	for _, row := range daemonHelp {
		if row.long == f.name {
			return row.arg == ""
		}
	}
	return false
}

// Type implements pflag.Value.
func (f *daemonFlag) Type() string   { return "" }
func (f *daemonFlag) String() string { return "" }

// parseDaemon reads the daemon's command line. A mistake of form is QEMU's getopt_long(3) at both doors.
func parseDaemon(d door, args []string) (*daemonOptions, error) {
	o := &daemonOptions{door: d}
	flags := pflag.NewFlagSet("daemon", pflag.ContinueOnError)
	flags.SetInterspersed(true)
	for _, row := range daemonHelp {
		flag := flags.VarPF(&daemonFlag{o, row.long}, row.long, row.short, "")
		if row.arg == "" {
			flag.NoOptDefVal = noArgument
		}
	}
	err := flags.Parse(args)
	var unknown *pflag.NotExistError
	var lacking *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return o, fmt.Errorf("invalid option -- '%s'", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		return o, fmt.Errorf("unrecognized option '--%s'", unknown.GetSpecifiedName())
	case errors.As(err, &lacking):
		return o, fmt.Errorf("option '--%s' requires an argument", lacking.GetSpecifiedName())
	case errors.As(err, &invalid):
		return o, invalid.Unwrap()
	case err != nil:
		return o, err
	case flags.NArg() > 0:
		return o, fmt.Errorf("%s: Unexpected argument", flags.Arg(0))
	}
	return o, nil
}

// daemonUsage is the text of --help, less its first lines.
func daemonUsage() string {
	var b strings.Builder
	for _, row := range daemonHelp {
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
