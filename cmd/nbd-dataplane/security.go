package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"nbd-dataplane/nbd"
)

// security is how the server tells who may come in.
type security struct {
	mode        nbd.TLSMode
	credentials *nbd.TLSCredentials
	authz       nbd.Authorizer
}

// serverSecurity loads the credentials that the command line names. warn is told later of files that turned bad.
func (o *options) serverSecurity(warn func(error)) (security, error) {
	creds, err := o.credentials()
	if err != nil || creds == nil {
		return security{}, err
	}
	if creds.isClient {
		return security{}, wrong(
			fmt.Sprintf("--tls-creds %s: the credentials are a client's; add endpoint=server to the --object", o.tlsCreds),
			"Failed to get TLS creds: Expecting TLS credentials with a server endpoint")
	}
	s := security{mode: nbd.TLSRequired}
	if o.tlsMode == "on" {
		s.mode = nbd.TLSOptional
	}
	files, err := creds.tlsFiles(o.secret)
	if err != nil {
		return s, err
	}
	files.Dir = lasting(files.Dir)
	if s.credentials, err = nbd.LoadTLS(files, warn); err != nil {
		return s, tlsError(creds.dir, err)
	}
	if o.tlsAuthz == "" {
		return s, nil
	}
	rule := o.findObject(o.tlsAuthz)
	if rule == nil || rule.authz == nil {
		return s, wrong(fmt.Sprintf("--tls-authz %s: there is no authorization object of this id; define it with --object authz-list,id=%s,...", o.tlsAuthz, o.tlsAuthz), "")
	}
	s.authz = rule.authz
	return s, nil
}

// tlsError adds QEMU's wording where a file cannot be read.
func tlsError(dir string, err error) error {
	for _, name := range []string{"ca-cert.pem", "server-cert.pem", "server-key.pem"} {
		path := filepath.Join(dir, name)
		var errno syscall.Errno
		if _, missing := os.Stat(path); errors.As(missing, &errno) {
			return wrong(err.Error(), fmt.Sprintf("Unable to access credentials %s: %s", path, strerror(errno)))
		}
	}
	return err
}

// credentials returns what --tls-creds or --tls-certificates name; nil = no TLS.
func (o *options) credentials() (*tlsObject, error) {
	if o.tlsMode == "off" {
		return nil, nil
	}
	if o.tlsCertificates != "" {
		return &tlsObject{dir: o.tlsCertificates, verifyPeer: o.tlsVerifyPeer, isClient: o.list}, nil
	}
	if o.tlsCreds == "" {
		return nil, nil
	}
	obj := o.findObject(o.tlsCreds)
	if obj == nil {
		return nil, wrong(fmt.Sprintf("--tls-creds %s: there is no object of this id; define it with --object tls-creds-x509,id=%s,endpoint=server,dir=DIR", o.tlsCreds, o.tlsCreds),
			fmt.Sprintf("Failed to get TLS creds: No TLS credentials with id '%s'", o.tlsCreds))
	}
	if obj.creds == nil {
		return nil, wrong(fmt.Sprintf("--tls-creds %s: this object is not TLS credentials; use the id of a tls-creds-x509", o.tlsCreds),
			fmt.Sprintf("Failed to get TLS creds: Object with id '%s' is not TLS credentials", o.tlsCreds))
	}
	return obj.creds, nil
}
