package interop_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// keyKind is a kind of key as certtool calls it.
type keyKind string

const (
	keyECDSA keyKind = "ecdsa"
	keyRSA   keyKind = "rsa" // what certtool makes unless told otherwise
)

// certificates makes a directory in the convention that QEMU, nbdkit and libnbd share: a CA, a server's certificate for
// localhost, and one for a client of the given common name. GnuTLS's certtool makes them, as an operator would.
func certificates(t *testing.T, clientName string) string {
	t.Helper()
	return certificatesOf(t, keyECDSA, keyECDSA, clientName)
}

// certificatesOf makes the same with keys of one kind for the CA and the server, and of another for the client.
func certificatesOf(t *testing.T, ca, clientKey keyKind, clientName string) string {
	t.Helper()
	dir := t.TempDir()
	key(t, dir, ca, "ca-key.pem")
	template(t, dir, "ca", "cn = interop CA\nca\ncert_signing_key\ncrl_signing_key\n")
	certtool(t, dir, "--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.info",
		"--outfile", "ca-cert.pem")
	signed(t, dir, "server", ca, "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\n")
	signed(t, dir, "client", clientKey, fmt.Sprintf("cn = %s\ntls_www_client\nsigning_key\n", clientName))
	return dir
}

func signed(t *testing.T, dir, who string, kind keyKind, content string) {
	t.Helper()
	key(t, dir, kind, who+"-key.pem")
	template(t, dir, who, content)
	certtool(t, dir, "--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem",
		"--load-privkey", who+"-key.pem", "--template", who+".info", "--outfile", who+"-cert.pem")
}

func key(t *testing.T, dir string, kind keyKind, file string) {
	t.Helper()
	certtool(t, dir, "--generate-privkey", "--key-type="+string(kind), "--outfile", file)
}

// revoking is a copy of a certificate directory with a list that takes the client's certificate back.
func revoking(t *testing.T, certs string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(certs)))
	template(t, dir, "crl", "crl_next_update = 2\ncrl_number = 1\n")
	certtool(t, dir, "--generate-crl", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem",
		"--load-certificate", "client-cert.pem", "--template", "crl.info", "--outfile", "ca-crl.pem")
	return dir
}

func template(t *testing.T, dir, who, content string) {
	t.Helper()
	content += "expiration_days = 2\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, who+".info"), []byte(content), 0o600))
}

func certtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	client(t, "/bin/sh", append([]string{"-c", `cd "$0" && exec certtool "$@"`, dir}, args...)...).ok(t)
}

// withoutClientCertificate is a copy of a certificate directory for a client that can check the server and cannot show
// who it is itself.
func withoutClientCertificate(t *testing.T, dir string) string {
	t.Helper()
	bare := t.TempDir()
	copyFile(t, dir, bare, "ca-cert.pem")
	return bare
}

func copyFile(t *testing.T, from, to, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(from, name))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(to, name), text, 0o600))
}
