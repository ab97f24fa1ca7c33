package main

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/internal/keyval"
)

// errHelp and errVersion are what the options of that name store: they end the reading of the command line.
var (
	errHelp    = errors.New("help")
	errVersion = errors.New("version")
)

// nameBytesMax bounds export names and descriptions. NBD proto.md, "Values".
const nameBytesMax = 4096

func setHelp(*options, string) error    { return errHelp }
func setVersion(*options, string) error { return errVersion }

// refuse is the setter of an option that is known and cannot be had.
func refuse(long string, short byte, reason, remedy string) func(*options, string) error {
	name := "--" + long
	if short != 0 {
		name = "-" + string(short) + "/" + name
	}
	return func(*options, string) error { return wrong(fmt.Sprintf("%s: %s; %s", name, reason, remedy), "") }
}

func setBind(o *options, v string) error     { o.bind = v; return nil }
func setReadOnly(o *options, _ string) error { o.readOnly = true; return nil }
func setList(o *options, _ string) error     { o.list = true; return nil }

func setPort(o *options, v string) error {
	o.port = v
	if _, err := strconv.Atoi(v); o.door == doorServe && err == nil {
		if _, err := strconv.ParseUint(v, 10, 16); err != nil {
			return wrong(fmt.Sprintf("-p/--port %s: there is no such port; use 0 (any free one) to 65535", v), "")
		}
	}
	return nil
}

func setSocket(o *options, v string) error {
	isAbstract := o.door == doorServe && len(v) > 1 && v[0] == '@'
	if !isAbstract && !filepath.IsAbs(v) {
		return wrong(fmt.Sprintf("-k/--socket %s: the path of the socket must be absolute (or @name, for an abstract one)", v), "socket path must be absolute")
	}
	o.socket = v
	return nil
}

// setOffset takes what strtoull(3) takes with base 0, and sizes with a suffix at our own door. As there, a minus sign wraps
// around, and the image is too short.
func setOffset(o *options, v string) error {
	if n, err := strconv.ParseUint(strings.TrimPrefix(v, "-"), 0, 64); err == nil && !strings.Contains(v, "_") {
		if o.offset = n; strings.HasPrefix(v, "-") {
			o.offset = -n
		}
		if o.offset <= math.MaxInt64 {
			return nil
		}
		if o.door == doorQEMU {
			return &keyval.Error{Parameter: "offset", Problem: offsetProblem, Hint: offsetHint}
		}
	}
	if n, err := keyval.Size("offset", v); o.door == doorServe && err == nil {
		o.offset = uint64(n)
		return nil
	}
	return wrong(fmt.Sprintf("-o/--offset %s: use a number of bytes, with a suffix k, M, G, T if you like", v), fmt.Sprintf("Invalid offset '%s'", v))
}

const (
	offsetProblem = "expects a non-negative number below 2^64"
	offsetHint    = "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
)

func setBitmap(o *options, v string) error {
	o.bitmaps = append([]string{v}, o.bitmaps...)
	return nil
}

func setAllocationDepth(o *options, _ string) error { o.allocationDepth = true; return nil }

func setShared(o *options, v string) error {
	n, err := strconv.ParseInt(v, 0, 32)
	if err != nil || n < 0 {
		return wrong(fmt.Sprintf("-e/--shared %s: use the number of clients to serve at once, or 0 for any number", v), fmt.Sprintf("Invalid shared device number '%s'", v))
	}
	o.shared = int(n)
	return nil
}

func setNoCache(o *options, _ string) error { return setCacheMode(o, "none") }

func setCache(o *options, v string) error { return setCacheMode(o, v) }

func setCacheMode(o *options, v string) (err error) {
	if o.given["cache"] || o.given["nocache"] {
		return wrong("-n and --cache can only be given once; leave out one of them", "-n and --cache can only be specified once")
	}
	if o.cache, err = raw.ParseCache(v); err != nil {
		return wrong("--"+err.Error(), fmt.Sprintf("Invalid cache mode `%s'", v))
	}
	return nil
}

// once refuses the second of an option that QEMU takes only once.
func once(o *options, name string) error {
	if o.given[name] {
		return wrong(fmt.Sprintf("--%s can only be given once; leave out one of them", name), fmt.Sprintf("--%s can only be specified once", name))
	}
	return nil
}

func setAIO(o *options, v string) (err error) {
	if err = once(o, "aio"); err != nil {
		return err
	}
	if o.aio, err = raw.ParseAIO(v); err != nil || v == "" {
		return wrong(fmt.Sprintf("--aio %s: use io_uring, threads or native", v), fmt.Sprintf("Invalid aio mode '%s'", v))
	}
	return nil
}

func setDiscard(o *options, v string) (err error) {
	if err = once(o, "discard"); err != nil {
		return err
	}
	if o.discard, err = raw.ParseDiscard(v); err != nil {
		return wrong("--"+err.Error(), fmt.Sprintf("Invalid discard mode `%s'", v))
	}
	return nil
}

func setDetectZeroes(o *options, v string) (err error) {
	if o.detectZeroes, err = raw.ParseDetectZeroes(v); err != nil {
		return wrong("--"+err.Error(), fmt.Sprintf("Failed to parse detect_zeroes mode: invalid parameter value: %s", v))
	}
	return nil
}

func setFormat(o *options, v string) error     { o.format = v; return nil }
func setPersistent(o *options, _ string) error { o.persistent = true; return nil }
func setVerbose(o *options, _ string) error    { o.verbose = true; return nil }

func setExportName(o *options, v string) error {
	if len(v) > nameBytesMax {
		return wrong(fmt.Sprintf("-x/--export-name: the name has %d bytes; NBD allows %d, take a shorter one", len(v), nameBytesMax), fmt.Sprintf("export name '%s' too long", v))
	}
	o.exportName = v
	return nil
}

func setDescription(o *options, v string) error {
	if len(v) > nameBytesMax {
		return wrong(fmt.Sprintf("-D/--description: the text has %d bytes; NBD allows %d, take a shorter one", len(v), nameBytesMax), fmt.Sprintf("export description '%s' too long", v))
	}
	o.description = v
	return nil
}

func setTLSCreds(o *options, v string) error    { o.tlsCreds = v; return nil }
func setTLSHostname(o *options, v string) error { o.tlsHostname = v; return nil }
func setTLSAuthz(o *options, v string) error    { o.tlsAuthz = v; return nil }
func setFork(o *options, _ string) error        { o.fork = true; return nil }
func setPIDFile(o *options, v string) error     { o.pidFile = v; return nil }
func setImageOpts(o *options, _ string) error   { o.imageOpts = true; return nil }

func setObject(o *options, v string) error {
	obj, err := parseObject(v, o.secret)
	if err != nil {
		return fmt.Errorf("%w", err)
	}
	o.objects = append(o.objects, obj)
	return nil
}
