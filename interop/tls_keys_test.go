package interop_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// onEachKey runs a test with certificates for alice, once for each pair of kinds of key: of the CA, for the client. The
// name of a test becomes part of paths, and a comma there would end an option.
func onEachKey(t *testing.T, run func(t *testing.T, certs string)) {
	for _, ca := range []keyKind{keyRSA, keyECDSA} {
		for _, client := range []keyKind{keyRSA, keyECDSA} {
			t.Run(fmt.Sprintf("%s for %s", ca, client), func(t *testing.T) {
				run(t, certificatesOf(t, ca, client, "alice"))
			})
		}
	}
}

// What GnuTLS prints at debug level 4, with its own numbers for the versions: 3.4 is TLS 1.3. It negotiates none with a
// server of TLS 1.2.
const (
	negotiated      = "Negotiated version:"
	negotiatedTLS13 = negotiated + " 3.4"
)

// useTLSClients connects with each client there is; those that tell the version have to say that it is TLS 1.3.
func useTLSClients(t *testing.T, server *subject.Server, certs string) {
	t.Helper()
	t.Setenv("GNUTLS_DEBUG_LEVEL", "4")
	object := "tls-creds-x509,id=me,endpoint=client,dir=" + certs
	port := strconv.Itoa(server.Port)
	for _, r := range []result{
		qemuIOTLS(t, server.Port, certs, "read -P 0 0 512"),
		client(t, "nbdinfo", "--size", tlsURI(server.Port, certs)),
		client(t, "qemu-nbd", "-L", "-b", "localhost", "-p", port, "--object", object, "--tls-creds", "me"),
	} {
		r.ok(t)
		require.Contains(t, r.stderr, negotiatedTLS13, r.line)
	}
	if !program.Stock() {
		client(t, program.Path(), "list", "-b", "localhost", "-p", port, "--object", object, "--tls-creds", "me").ok(t)
	}
}

// Goal: a client may prove who it is with a certificate of any kind, RSA as certtool makes it among them, and TLS 1.3 is
// spoken whatever the kind. Method: RSA and ECDSA for the CA and for the client; QEMU's clients, libnbd and Go's, at a
// server that verifies them, one that besides asks for their name, and one that does neither.
func TestTLSClientKeys(t *testing.T) {
	onEachKey(t, func(t *testing.T, certs string) {
		useTLSClients(t, serveTLS(t, sparse(t, mib), certs), certs)
		useTLSClients(t, serveTLS(t, sparse(t, mib), certs,
			"--object", "authz-simple,id=authz0,identity=CN=alice", "--tls-authz", "authz0"), certs)
		useTLSClients(t, startTLS(t, sparse(t, mib), "verify-peer=off,dir="+certs), certs)
	})
}

// Goal: TLS 1.2 takes the same certificates. Method: qemu-io with GnuTLS's priorities set to leave out 1.3.
func TestTLSClientKeysInTLS12(t *testing.T) {
	t.Setenv("GNUTLS_DEBUG_LEVEL", "4")
	onEachKey(t, func(t *testing.T, certs string) {
		server := serveTLS(t, sparse(t, mib), certs)
		got := qemuIOTLS(t, server.Port, certs+",priority=NORMAL:-VERS-TLS1.3", "read -P 0 0 512")
		got.ok(t)
		require.NotContains(t, got.stderr, negotiated)
	})
}

// Goal: who is not to come in does not, whatever the kind of key. Method: the right certificate at a server that asks for
// another name, and at one that has revoked it; a certificate of the same name from another CA, with nbdinfo alone,
// because QEMU's clients do not even try with that.
func TestTLSClientKeysRefused(t *testing.T) {
	onEachKey(t, func(t *testing.T, certs string) {
		for _, server := range []*subject.Server{
			serveTLS(t, sparse(t, mib), certs, "--object", "authz-simple,id=authz0,identity=CN=bob", "--tls-authz", "authz0"),
			serveTLS(t, sparse(t, mib), revoking(t, certs)),
		} {
			qemuIOTLS(t, server.Port, certs, "read 0 512").fails(t, "can't open")
			client(t, "nbdinfo", "--size", tlsURI(server.Port, certs)).fails(t, "nbd_connect_uri")
		}
		stranger := certificatesOf(t, keyRSA, keyRSA, "alice")
		copyFile(t, certs, stranger, "ca-cert.pem") // it believes the server
		client(t, "nbdinfo", "--size", tlsURI(serveTLS(t, sparse(t, mib), certs).Port, stranger)).fails(t, "nbd_connect_uri")
	})
}
