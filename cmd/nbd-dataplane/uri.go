package main

import (
	"fmt"
	"net/url"
	"strings"
)

// readURI stores where an NBD URI points. The export's name counts for nothing in a list. NBD uri.md.
func (o *options) readURI(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return wrong(fmt.Sprintf("%s: not a URI; write nbd://HOST:PORT or nbd+unix:///?socket=PATH", text), "")
	}
	scheme, transport, _ := strings.Cut(u.Scheme, "+")
	if scheme != "nbd" && scheme != "nbds" {
		return wrong(fmt.Sprintf("%s: not an NBD URI; write nbd://HOST:PORT or nbd+unix:///?socket=PATH", text), "")
	}
	if scheme == "nbds" && o.tlsCreds == "" && o.tlsCertificates == "" {
		return wrong(fmt.Sprintf("%s: TLS needs certificates; add --tls-certificates DIR", text), "")
	}
	switch transport {
	case "":
		return o.readHost(u)
	case "unix":
		return o.readSocket(u)
	case "vsock":
		return setVsock(o, u.Host)
	}
	return wrong(fmt.Sprintf("%s: there is no transport '%s'; use nbd, nbd+unix or nbd+vsock", text, transport), "")
}

func (o *options) readHost(u *url.URL) error {
	if u.Hostname() != "" {
		o.bind = u.Hostname()
	}
	if u.Port() != "" {
		return setPort(o, u.Port())
	}
	return nil
}

func (o *options) readSocket(u *url.URL) error {
	path := u.Query().Get("socket")
	if name, isAbstract := strings.CutPrefix(path, "\x00"); isAbstract {
		path = "@" + name
	}
	if path == "" {
		return wrong(fmt.Sprintf("%s: it names no socket; add ?socket=PATH", u), "")
	}
	return setSocket(o, path)
}
