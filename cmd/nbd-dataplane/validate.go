package main

import (
	"fmt"
	"slices"
	"strings"

	"nbd-dataplane/backends/null"
	"nbd-dataplane/backends/raw"
)

// check looks at the command line as a whole. What QEMU checks comes first, in its order and words.
func (o *options) check() error {
	for _, step := range []func(*options) error{
		(*options).checkList, (*options).checkFiles, (*options).checkTLS, (*options).checkImage, (*options).checkListen, (*options).checkProcess,
	} {
		if err := step(o); err != nil {
			return err
		}
	}
	return nil
}

// perDevice are the options that say something about an image.
var perDevice = []string{
	"export-name", "description", "offset", "format", "allocation-depth", "bitmap", "aio", "discard", "cache", "nocache",
	"detect-zeroes", "image-opts", "create", "create-options", "map", "snapshot", "load-snapshot",
}

// perDeviceQEMU are those of perDevice that qemu-nbd minds in a list.
var perDeviceQEMU = []string{"export-name", "description", "offset", "format", "allocation-depth", "bitmap", "aio", "discard", "cache", "nocache", "load-snapshot"}

func (o *options) checkList() error {
	if !o.list {
		return nil
	}
	minded := perDevice
	if o.door == doorQEMU {
		minded = perDeviceQEMU
	}
	for _, name := range minded {
		if o.given[name] && len(o.files) == 0 {
			return wrong(fmt.Sprintf("--%s is about an image to serve and --list only asks a server; leave out one of them", name),
				"List mode is incompatible with per-device settings")
		}
	}
	switch {
	case len(o.files) > 0:
		return wrong(fmt.Sprintf("--list asks a server and %s is a file to serve; leave out one of them", o.files[0]), "List mode is incompatible with a file name")
	case o.fork:
		return wrong("--list ends at once and --fork stays in the background; leave out one of them", "List mode is incompatible with forking")
	}
	return nil
}

func (o *options) checkFiles() error {
	switch {
	case o.list:
		return nil
	case o.door == doorQEMU && len(o.files) != 1:
		return wrong("", "Invalid number of arguments\n"+o.tryHelp())
	case len(o.files) == 0:
		return &usageError{own: "no file to serve; name an image, a block device, nfs:// or null-co://", see: true}
	case len(o.files) > 1 && o.given["export-name"]:
		return wrong("-x/--export-name names one export and there are several files; write NAME=FILE for each", "")
	case len(o.files) > 1 && o.imageOpts:
		return wrong("--image-opts describes one image and there are several; start the program once for each", "")
	}
	if o.door == doorQEMU {
		return nil
	}
	return o.checkNames()
}

// checkNames sees to it that several exports have several names.
func (o *options) checkNames() error {
	seen := map[string]string{}
	for _, f := range o.files {
		name, path := o.splitFile(f)
		if path == "" {
			return wrong(fmt.Sprintf("'%s': there is no file name; write FILE or NAME=FILE", f), "")
		}
		if len(name) > nameBytesMax {
			return wrong(fmt.Sprintf("%.40s...: the name has %d bytes; NBD allows %d, take a shorter one", name, len(name), nameBytesMax), "")
		}
		if other, taken := seen[name]; taken {
			return wrong(fmt.Sprintf("%s and %s would both be the export %q; write NAME=FILE with a name for each", other, path, name), "")
		}
		seen[name] = path
	}
	return o.checkTwice()
}

// checkTwice explains what would otherwise end in a complaint about the lock of "another process": our own.
func (o *options) checkTwice() error {
	seen := map[string]bool{}
	for _, f := range o.files {
		_, path := o.splitFile(f)
		if seen[path] && !o.readOnly && !null.IsURL(path) {
			return wrong(fmt.Sprintf("%s: the image would have two exports that write to it; leave out one of them, or add --read-only", path), "")
		}
		seen[path] = true
	}
	return nil
}

// splitFile cuts NAME=FILE. A name holds neither '/' nor ':', so that file names with a '=' further on, URLs and JSON stay
// whole; for a file "a=b" write "./a=b".
func (o *options) splitFile(arg string) (name, path string) {
	name, path, found := strings.Cut(arg, "=")
	if o.door == doorQEMU || o.imageOpts || o.given["export-name"] || !found || name == "" || strings.ContainsAny(name, "/:") {
		return o.exportName, arg
	}
	return name, path
}

func (o *options) checkTLS() error {
	switch {
	case o.tlsCreds == "" && o.tlsAuthz != "" && o.tlsCertificates == "":
		return wrong("--tls-authz needs TLS; add --tls-creds or --tls-certificates", "--tls-authz is not permitted without --tls-creds")
	case o.tlsCreds == "" && o.tlsHostname != "" && o.tlsCertificates == "":
		return wrong("--tls-hostname needs TLS; add --tls-creds or --tls-certificates", "--tls-hostname is not permitted without --tls-creds")
	case o.list && o.tlsAuthz != "":
		return wrong("--tls-authz is for a server and --list is a client; leave out one of them", "TLS authorization is incompatible with export list")
	case !o.list && o.tlsHostname != "":
		return wrong("--tls-hostname is for --list, which looks at a server's certificate; leave it out", "TLS hostname is only supported with export list")
	case o.tlsCreds != "" && o.tlsCertificates != "":
		return wrong("--tls-creds and --tls-certificates both name credentials; leave out one of them", "")
	case (o.tlsMode == "on" || o.tlsMode == "require") && o.tlsCreds == "" && o.tlsCertificates == "":
		return wrong("--tls "+o.tlsMode+" needs certificates; add --tls-certificates DIR", "")
	case o.tlsAuthz != "" && o.tlsCertificates != "" && !o.tlsVerifyPeer:
		return wrong("--tls-authz looks at the certificates of clients, which nobody asks them for; add --tls-verify-peer", "")
	case o.tlsVerifyPeer && o.tlsCertificates == "":
		return wrong("--tls-verify-peer needs certificates; add --tls-certificates DIR", "")
	}
	return nil
}

func (o *options) checkImage() error {
	switch {
	case o.imageOpts && o.format != "":
		return wrong("--image-opts says the format itself; leave out -f/--format", "--image-opts and -f are mutually exclusive")
	case o.detectZeroes == raw.DetectUnmap && o.discard != raw.DiscardUnmap:
		return wrong("--detect-zeroes=unmap gives storage back, which --discard=ignore forbids; add --discard=unmap",
			"setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
	case o.createBytes > 0 && o.showSnapshot != nil:
		return wrong("--create makes an empty image, which has no snapshots for --load-snapshot; leave out one of them", "")
	case o.createBytes > 0 && o.overlay:
		return wrong("--create makes an image to keep and --snapshot keeps nothing; leave out one of them", "")
	case len(o.createOptions) > 0 && o.createBytes == 0:
		return wrong("--create-options say how to make an image; add --create SIZE, or leave them out", "")
	case o.createBytes > 0 && o.readOnly:
		return wrong("--create makes an empty file and --read-only never writes it; leave out one of them", "")
	}
	return nil
}

func (o *options) checkListen() error {
	if o.door == doorQEMU {
		return nil
	}
	switch {
	case o.socket != "" && (o.given["port"] || o.given["bind"]):
		return wrong("-k/--socket and -p/--port or -b/--bind are two places to listen; choose one", "")
	case o.vsock.set && (o.given["port"] || o.given["bind"] || o.socket != ""):
		return wrong("--vsock and -p, -b or -k are two places to listen; choose one", "")
	}
	return nil
}

func (o *options) checkProcess() error {
	switch {
	case o.run != "" && o.fork:
		return wrong("--run waits for its command and --fork does not wait; leave out one of them", "")
	case o.run == "" && o.given["run"]:
		return wrong("--run: there is no command; write --run 'CMD ARG...'", "")
	case o.allowLess && o.remember == "":
		return wrong("--allow-less is about what --remember FILE remembers; add that, or leave it out", "")
	case o.given["pid-file"] && o.pidFile == "":
		return wrong("--pid-file: the name is empty; give a path", "Could not create '': No such file or directory")
	}
	return nil
}

// aboutListening lists the options given that say where to listen, which excludes a socket handed over by systemd.
func (o *options) aboutListening() []string {
	return slices.DeleteFunc([]string{"socket", "bind", "port", "vsock"}, func(name string) bool { return !o.given[name] })
}
