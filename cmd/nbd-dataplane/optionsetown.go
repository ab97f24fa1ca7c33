package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/internal/keyval"
)

// The setters of the options that only our own door has.

// vsockAddress is where --vsock listens.
type vsockAddress struct {
	set  bool
	cid  uint32
	port uint32
}

// vsockCIDAny is VMADDR_CID_ANY: whatever CID the host, or the guest we run in, has.
const vsockCIDAny = ^uint32(0)

func setVsock(o *options, v string) error {
	cid, port, hasCID := strings.Cut(v, ":")
	if !hasCID {
		cid, port = "", v
	}
	a := vsockAddress{set: true, cid: vsockCIDAny}
	if cid != "" {
		n, err := strconv.ParseUint(cid, 10, 32)
		if err != nil {
			return vsockWrong(v, "cid", cid)
		}
		a.cid = uint32(n)
	}
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil || uint32(n) == vsockCIDAny {
		return vsockWrong(v, "port", port)
	}
	a.port = uint32(n)
	o.vsock = a
	return nil
}

func vsockWrong(v, part, text string) error {
	return wrong(fmt.Sprintf("--vsock %s: use PORT or CID:PORT, both numbers (10809 is NBD's port)", v), fmt.Sprintf("Failed to parse %s '%s'", part, text))
}

func setCreate(o *options, v string) error {
	n, err := keyval.Size("create", v)
	if err != nil || n == 0 {
		return wrong(fmt.Sprintf("--create %s: use a size such as 512M, 10G or 1T", v), "")
	}
	o.createBytes = n
	return nil
}

func setCreateOptions(o *options, v string) error {
	if _, err := keyval.Parse(v, ""); err != nil {
		return wrong(fmt.Sprintf("--create-options %s: %v; write NAME=VALUE,...; 'image create -o help' lists them", v, err), "")
	}
	o.createOptions = append(o.createOptions, v)
	return nil
}

func setMap(o *options, v string) (err error) {
	if o.mapping, err = raw.ParseMap(v); err != nil {
		return wrong("--"+err.Error(), "")
	}
	return nil
}

func setExitLast(o *options, _ string) error { o.exitLast = true; return nil }
func setPrintURI(o *options, _ string) error { o.printURI = true; return nil }
func setRun(o *options, v string) error      { o.run = v; return nil }
func setControl(o *options, v string) error {
	if v == "" {
		return errors.New("--control: name the socket to make, as in --control /run/disk.ctl")
	}
	o.control = v
	return nil
}

func setRemember(o *options, v string) error {
	if v == "" {
		return errors.New("--remember: name the file, as in --remember /var/lib/nbd/offers")
	}
	o.remember = lasting(v)
	return nil
}

func setAllowLess(o *options, _ string) error { o.allowLess = true; return nil }

func setTLSVerifyPeer(o *options, _ string) error { o.tlsVerifyPeer = true; return nil }

func setTLSCertificates(o *options, v string) error {
	if v == "" {
		return errors.New("--tls-certificates: name the directory that holds the certificates")
	}
	o.tlsCertificates = v
	return nil
}

func setTLSMode(o *options, v string) error {
	return oneOf("tls", v, &o.tlsMode, "off", "on", "require")
}
func setOnStop(o *options, v string) error {
	if v == "pause" || strings.HasPrefix(v, "pause:") {
		return wrong("--on-stop pause: connections end with the process, so nobody could go on with them; use restart, which clients with "+
			"reconnect-delay do not notice, and 'ctl export del --pause' for an export that comes back in this process", "")
	}
	return oneOf("on-stop", v, &o.onStop, "restart", "retire")
}
func setLogFormat(o *options, v string) error {
	return oneOf("log-format", v, &o.logFormat, "text", "json")
}

func setLogLevel(o *options, v string) error {
	return oneOf("log-level", v, &o.logLevel, "debug", "info", "warn", "error", "off")
}

func oneOf(name, v string, to *string, choices ...string) error {
	if !slices.Contains(choices, v) {
		last := len(choices) - 1
		return wrong(fmt.Sprintf("--%s %s: use %s or %s", name, v, strings.Join(choices[:last], ", "), choices[last]), "")
	}
	*to = v
	return nil
}

func setIOThreads(o *options, v string) error { return setCount("iothreads", v, &o.ioThreads) }
func setWorkers(o *options, v string) error   { return setCount("workers", v, &o.workers) }

func setConnectionsMax(o *options, v string) error {
	return setCount("max-connections", v, &o.connectionsMax)
}

// countMax is far above what makes sense and far below what overflows.
const countMax = 1 << 20

func setCount(name, v string, to *int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > countMax {
		return wrong(fmt.Sprintf("--%s %s: use a number from 1 to %d", name, v, countMax), "")
	}
	*to = n
	return nil
}

// pollMaxMax: a loop that looks for longer than this starves whoever shares its CPU.
const pollMaxMax = time.Second

func setPollMax(o *options, v string) error {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || time.Duration(n) > pollMaxMax {
		return wrong(fmt.Sprintf("--poll-max-ns %s: use nanoseconds from 0 to %d", v, pollMaxMax.Nanoseconds()), "")
	}
	if o.pollMax = time.Duration(n); n == 0 {
		o.pollMax = -1 // to an AioContext, 0 is the default and a negative value is "not at all"
	}
	return nil
}

func setHandshakeTimeout(o *options, v string) error {
	return setSeconds("handshake-timeout", v, &o.handshakeTimeout)
}

func setStopTimeout(o *options, v string) error {
	return setSeconds("stop-timeout", v, &o.stopTimeout)
}

func setSeconds(name, v string, to *time.Duration) error {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || !(n > 0 && n <= 86400) {
		return wrong(fmt.Sprintf("--%s %s: use seconds, above 0 and up to 86400", name, v), "")
	}
	*to = time.Duration(n * float64(time.Second))
	return nil
}

func setMemoryLimit(o *options, v string) error { return setMemory("memory-limit", v, &o.memoryLimit) }
func setExportMemory(o *options, v string) error {
	return setMemory("export-memory-limit", v, &o.exportMemory)
}

func setConnectionMemory(o *options, v string) error {
	return setMemory("connection-memory-limit", v, &o.connectionMemory)
}

// memoryMin is room for a few small requests; below it nothing moves.
const memoryMin = 1 << 20

func setMemory(name, v string, to *int64) error {
	n, err := keyval.Size(name, v)
	if err != nil || n < memoryMin {
		return wrong(fmt.Sprintf("--%s %s: use a size of 1M or more", name, v), "")
	}
	*to = n
	return nil
}
