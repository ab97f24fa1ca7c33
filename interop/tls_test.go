package interop_test

import (
	"fmt"
	"testing"

	"nbd-dataplane/interop/subject"
)

// serveTLS starts a server that insists on TLS and on a client's certificate; more are further options.
func serveTLS(t *testing.T, file, certs string, more ...string) *subject.Server {
	t.Helper()
	return startTLS(t, file, "verify-peer=on,dir="+certs, more...)
}

// startTLS starts a server that insists on TLS, with credentials as described.
func startTLS(t *testing.T, file, credentials string, more ...string) *subject.Server {
	t.Helper()
	args := []string{"-f", "raw", "--tls-creds", "tls0",
		"--object", "tls-creds-x509,id=tls0,endpoint=server," + credentials}
	return program.Start(t, subject.Options{File: file, TCP: true, Args: append(args, more...)})
}

// qemuIOTLS runs qemu-io's commands over TLS with the certificates of a directory.
func qemuIOTLS(t *testing.T, port int, certs string, commands ...string) result {
	t.Helper()
	args := []string{"--object", "tls-creds-x509,id=me,endpoint=client,dir=" + certs, "--image-opts"}
	for _, command := range commands {
		args = append(args, "-c", command)
	}
	image := fmt.Sprintf("driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=localhost,"+
		"file.server.port=%d,file.tls-creds=me", port)
	return client(t, "qemu-io", append(args, image)...)
}

// tlsURI is libnbd's way to say it all in one line.
func tlsURI(port int, certs string) string {
	return fmt.Sprintf("nbds://localhost:%d/?tls-certificates=%s", port, certs)
}

// Goal: QEMU's client works over TLS. Method: qemu-io writes and verifies patterns, small and large.
func TestTLSQemuIO(t *testing.T) {
	certs := certificates(t, "alice")
	server := serveTLS(t, sparse(t, 16*mib), certs)
	qemuIOTLS(t, server.Port, certs, "write -P 0x61 0 4M", "write -P 0x62 4M 512", "flush",
		"read -P 0x61 0 4M", "read -P 0x62 4M 512", "read -P 0 8M 8M").ok(t)
}

// Goal: a GnuTLS client in libnbd works over TLS, with every command and many requests in flight. Method: nbdsh's
// tls.py; nbdinfo asks over the same URI.
func TestTLSNbdsh(t *testing.T) {
	certs := certificates(t, "alice")
	server := serveTLS(t, sparse(t, 16*mib), certs)
	nbdsh(t, "tls.py", tlsURI(server.Port, certs))
	client(t, "nbdinfo", tlsURI(server.Port, certs)).ok(t)
}

// Goal: without TLS there is nothing to see (TLS-3). Method: plain clients ask for the export and for the list.
func TestTLSIsForced(t *testing.T) {
	server := serveTLS(t, sparse(t, mib), certificates(t, "alice"))
	client(t, "nbdinfo", server.URI()).fails(t, "TLS")
	client(t, "nbdinfo", "--list", server.URI()).fails(t, "server replied with error to list request")
}

// Goal: a client that shows no certificate, or one of another CA, is turned away. Method: nbdinfo and qemu-io with none,
// qemu-io with a stranger's.
func TestTLSClientCertificateIsRequired(t *testing.T) {
	certs := certificates(t, "alice")
	server := serveTLS(t, sparse(t, mib), certs)
	bare := withoutClientCertificate(t, certs)
	client(t, "nbdinfo", tlsURI(server.Port, bare)).fails(t, "nbd")
	qemuIOTLS(t, server.Port, bare, "read 0 512").fails(t, "can't open")
	qemuIOTLS(t, server.Port, certificates(t, "alice"), "read 0 512").fails(t, "can't open")
	qemuIOTLS(t, server.Port, certs, "read 0 512").ok(t)
}

// Goal: only the named client is let in. Method: --tls-authz with authz-simple; the same certificates' owner is the
// right one for one server and the wrong one for another.
func TestTLSAuthorisation(t *testing.T) {
	certs := certificates(t, "alice")
	only := func(name string) *subject.Server {
		return serveTLS(t, sparse(t, mib), certs,
			"--object", "authz-simple,id=authz0,identity=CN="+name, "--tls-authz", "authz0")
	}
	qemuIOTLS(t, only("alice").Port, certs, "read 0 512").ok(t)
	qemuIOTLS(t, only("bob").Port, certs, "read 0 512").fails(t, "can't open")
}

// Goal: a list of rules decides, the first that matches. Method: --tls-authz with authz-list, glob and exact rules.
func TestTLSAuthorisationList(t *testing.T) {
	certs := certificates(t, "alice")
	rules := func(first string) *subject.Server {
		return serveTLS(t, sparse(t, mib), certs, "--tls-authz", "authz0", "--object",
			"authz-list,id=authz0,policy=deny,rules.0.match=CN=a*,rules.0.format=glob,rules.0.policy="+first+
				",rules.1.match=CN=alice,rules.1.format=exact,rules.1.policy=allow")
	}
	qemuIOTLS(t, rules("allow").Port, certs, "read 0 512").ok(t)
	qemuIOTLS(t, rules("deny").Port, certs, "read 0 512").fails(t, "can't open")
}
