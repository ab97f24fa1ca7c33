package interop_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// certificates makes a directory in the convention that QEMU, nbdkit and libnbd share: a CA, a server's certificate for
// localhost, and one for a client of the given common name. GnuTLS's certtool makes them, as an operator would.
func certificates(t *testing.T, clientName string) string {
	t.Helper()
	dir := t.TempDir()
	key(t, dir, "ca-key.pem")
	template(t, dir, "ca", "cn = interop CA\nca\ncert_signing_key\n")
	certtool(t, dir, "--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.info",
		"--outfile", "ca-cert.pem")
	signed(t, dir, "server", "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\n")
	signed(t, dir, "client", fmt.Sprintf("cn = %s\ntls_www_client\nsigning_key\n", clientName))
	return dir
}

func signed(t *testing.T, dir, who, content string) {
	t.Helper()
	key(t, dir, who+"-key.pem")
	template(t, dir, who, content)
	certtool(t, dir, "--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem",
		"--load-privkey", who+"-key.pem", "--template", who+".info", "--outfile", who+"-cert.pem")
}

func key(t *testing.T, dir, file string) {
	t.Helper()
	certtool(t, dir, "--generate-privkey", "--key-type=ecdsa", "--outfile", file)
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
	text, err := os.ReadFile(filepath.Join(dir, "ca-cert.pem"))
	require.NoError(t, err)
	bare := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bare, "ca-cert.pem"), text, 0o600))
	return bare
}
