package pemkey

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tool runs openssl or certtool in a directory.
func tool(t testing.TB, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
}

// makings are the ways in which the tools write keys with the password "secret": the key in clear is in key.pem.
var makings = map[string][]string{
	"openssl pkcs8":            {"openssl", "pkcs8", "-topk8", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"openssl pkey":             {"openssl", "pkey", "-in", "key.pem", "-out", "out.pem", "-aes256", "-passout", "pass:secret"},
	"AES-128":                  {"openssl", "pkcs8", "-topk8", "-v2", "aes-128-cbc", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"AES-192":                  {"openssl", "pkcs8", "-topk8", "-v2", "aes-192-cbc", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"triple DES":               {"openssl", "pkcs8", "-topk8", "-v2", "des3", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"HMAC with SHA-1":          {"openssl", "pkcs8", "-topk8", "-v2prf", "hmacWithSHA1", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"HMAC with SHA-224":        {"openssl", "pkcs8", "-topk8", "-v2prf", "hmacWithSHA224", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"HMAC with SHA-384":        {"openssl", "pkcs8", "-topk8", "-v2prf", "hmacWithSHA384", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"HMAC with SHA-512":        {"openssl", "pkcs8", "-topk8", "-v2prf", "hmacWithSHA512", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"},
	"certtool":                 {"certtool", "--to-p8", "--load-privkey", "key.pem", "--outfile", "out.pem", "--password", "secret"},
	"certtool, AES-128":        {"certtool", "--to-p8", "--pkcs-cipher", "aes-128", "--load-privkey", "key.pem", "--outfile", "out.pem", "--password", "secret"},
	"certtool, triple DES":     {"certtool", "--to-p8", "--pkcs-cipher", "3des", "--load-privkey", "key.pem", "--outfile", "out.pem", "--password", "secret"},
	"encrypted block, AES-256": {"openssl", "ec", "-in", "key.pem", "-out", "out.pem", "-aes256", "-passout", "pass:secret"},
	"encrypted block, DES":     {"openssl", "ec", "-in", "key.pem", "-out", "out.pem", "-des3", "-passout", "pass:secret"},
}

// newKey makes a certificate and its key, in clear.
func newKey(t testing.TB) (dir string) {
	dir = t.TempDir()
	tool(t, dir, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=x")
	return dir
}

func read(t testing.TB, dir, name string) []byte {
	data, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return data
}

// Goal: keys are read as the tools write them, and a wrong password, an empty one and none are told apart from a file that cannot be read. Method: one
// key in all forms, and its certificate, with which crypto/tls compares what comes out.
func TestKeysOfTools(t *testing.T) {
	dir := newKey(t)
	cert := read(t, dir, "cert.pem")
	for name, command := range makings {
		tool(t, dir, command[0], command[1:]...)
		data := read(t, dir, "out.pem")
		require.Contains(t, string(data), "ENCRYPTED", name)
		clear, err := Decrypt(data, []byte("secret"))
		require.NoError(t, err, name)
		_, err = tls.X509KeyPair(cert, clear)
		require.NoError(t, err, name)
		for _, wrong := range []string{"wrong", "", "secret\n"} {
			_, err = Decrypt(data, []byte(wrong))
			require.ErrorIs(t, err, ErrPassword, "%s: %q", name, wrong)
		}
		_, err = Decrypt(data, nil)
		require.ErrorIs(t, err, ErrNoPassword, name)
	}
}

// Goal: what is not encrypted comes back, with a password or without. Method: a key and a certificate in one file, and what is no PEM at all.
func TestClearFiles(t *testing.T) {
	dir := newKey(t)
	both := append(read(t, dir, "cert.pem"), read(t, dir, "key.pem")...)
	for _, password := range [][]byte{nil, []byte("secret")} {
		for _, data := range [][]byte{both, []byte("no PEM"), nil} {
			same, err := Decrypt(data, password)
			require.NoError(t, err)
			require.Equal(t, data, same)
		}
	}
}

// Goal: what cannot be read is told, with the remedy where there is one. Method: the schemes of old, scrypt, another cipher.
func TestForeignSchemes(t *testing.T) {
	dir := newKey(t)
	for name, c := range map[string]struct{ options, message string }{
		"PBES1":  {"-v1 PBE-SHA1-3DES", "is not PBES2; 'openssl pkey"},
		"scrypt": {"-scrypt", "is not PBKDF2; 'openssl pkey"},
		"cipher": {"-v2 camellia-128-cbc", "is not known; 'openssl pkey"},
	} {
		args := append([]string{"pkcs8", "-topk8", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret"}, strings.Fields(c.options)...)
		tool(t, dir, "openssl", args...)
		_, err := Decrypt(read(t, dir, "out.pem"), []byte("secret"))
		require.ErrorContains(t, err, c.message, name)
	}
}

// Goal: no file asks for more work than a bound. Method: numbers of iterations beside the bounds.
func TestWorkIsBounded(t *testing.T) {
	for _, iterations := range []int{-1, 0, iterationsMax + 1} {
		params := pbes2{
			KeyDerivation: pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: value(t, pbkdf2Params{Salt: make([]byte, 8), Iterations: iterations, PRF: pkix.AlgorithmIdentifier{Algorithm: prfs[3].oid}})},
			Encryption:    pkix.AlgorithmIdentifier{Algorithm: schemes[0].oid, Parameters: value(t, make([]byte, 16))},
		}
		key := encryptedKey{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPBES2, Parameters: value(t, params)}, Data: make([]byte, 16)}
		_, err := Decrypt(pem.EncodeToMemory(&pem.Block{Type: kindEncrypted, Bytes: value(t, key).FullBytes}), []byte("secret"))
		require.ErrorContains(t, err, "iterations are not from 1 to 10000000")
	}
}

func value(t *testing.T, v any) asn1.RawValue {
	t.Helper()
	der, err := asn1.Marshal(v)
	require.NoError(t, err)
	return asn1.RawValue{FullBytes: der}
}

// Goal: no file makes it panic, or work for long. Method: files of the tools, changed.
func FuzzDecrypt(f *testing.F) {
	dir := newKey(f)
	for name, command := range makings {
		if strings.Contains(name, "block") {
			continue
		}
		tool(f, dir, command[0], command[1:]...)
		block, _ := pem.Decode(read(f, dir, "out.pem"))
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		var key encryptedKey
		var params pbes2
		var derivation pbkdf2Params
		if parse(der, &key) && parse(key.Algorithm.Parameters.FullBytes, &params) {
			if _, err := asn1.Unmarshal(params.KeyDerivation.Parameters.FullBytes, &derivation); err == nil && derivation.Iterations > 10_000 {
				return // it would be slow, and no more than that
			}
		}
		_, _ = Decrypt(pem.EncodeToMemory(&pem.Block{Type: kindEncrypted, Bytes: der}), []byte("secret"))
	})
}
