package nbd

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority is a certificate authority for one test.
type authority struct {
	t      testing.TB
	kind   keyKind // of its key and of those it issues
	cert   *x509.Certificate
	key    crypto.Signer
	serial int64
}

// keyKind is a kind of key that certificates are made for.
type keyKind string

const (
	keyECDSA   keyKind = "ECDSA"
	keyEd25519 keyKind = "Ed25519"
	keyRSA     keyKind = "RSA"
)

func newKey(t testing.TB, kind keyKind) (key crypto.Signer) {
	var err error
	switch kind {
	case keyEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case keyRSA:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	require.NoError(t, err)
	return key
}

func newAuthority(t testing.TB) *authority { return newAuthorityOf(t, keyECDSA) }

func newAuthorityOf(t testing.TB, kind keyKind) *authority {
	a := &authority{t: t, kind: kind, key: newKey(t, kind)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour), SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return a
}

// issue signs a certificate for a new key; change adapts the template.
func (a *authority) issue(name string, change func(*x509.Certificate)) (cert *x509.Certificate, key crypto.Signer) {
	key = newKey(a.t, a.kind)
	return a.sign(name, key, change), key
}

// sign signs a certificate for a key that exists.
func (a *authority) sign(name string, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(100 + a.serial), Subject: pkix.Name{CommonName: name, Organization: []string{"Acme, Inc."}},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(a.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return cert
}

// revoke writes a list with the given certificates into dir.
func (a *authority) revoke(dir string, expires time.Time, certs ...*x509.Certificate) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Unix(0, 0), NextUpdate: expires}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Unix(0, 0)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	require.NoError(a.t, err)
	writePEM(a.t, filepath.Join(dir, fileCACRL), "X509 CRL", der)
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// directory writes a directory of credentials: the authority's certificate and a pair.
func (a *authority) directory(certName, keyName string, cert *x509.Certificate, key crypto.Signer) string {
	dir := a.t.TempDir()
	writePEM(a.t, filepath.Join(dir, fileCACert), "CERTIFICATE", a.cert.Raw)
	a.store(dir, certName, keyName, cert, key)
	return dir
}

func (a *authority) store(dir, certName, keyName string, cert *x509.Certificate, key crypto.Signer) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	writePEM(a.t, filepath.Join(dir, certName), "CERTIFICATE", cert.Raw)
	writePEM(a.t, filepath.Join(dir, keyName), "PRIVATE KEY", der)
}

// serverDirectory is a directory for a server called localhost.
func (a *authority) serverDirectory() string {
	cert, key := a.issue("localhost", func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })
	return a.directory(fileServerCert, fileServerKey, cert, key)
}

func serverTLS(t testing.TB, a *authority, verifyPeer bool) *TLSCredentials {
	c, err := LoadTLS(TLSFiles{Dir: a.serverDirectory(), VerifyPeer: verifyPeer}, nil)
	require.NoError(t, err)
	return c
}

// clientTLS is the configuration of a client called name, or of one without a certificate.
func clientTLS(t testing.TB, a *authority, name string) *tls.Config {
	dir := t.TempDir()
	writePEM(t, filepath.Join(dir, fileCACert), "CERTIFICATE", a.cert.Raw)
	if name != "" {
		cert, key := a.issue(name, nil)
		a.store(dir, fileClientCert, fileClientKey, cert, key)
	}
	config, err := LoadClientTLS(TLSFiles{Dir: dir, VerifyPeer: true}, "localhost")
	require.NoError(t, err)
	return config
}

// connectTLS brings a client through STARTTLS and GO, and returns how each side ended.
func connectTLS(t testing.TB, o handshakeOptions, config *tls.Config) (*Client, handshakeEnd, error) {
	client, server := socketPair(t, "unix")
	end := startHandshake(t.Context(), server, o)
	c, err := NewClient(client)
	require.NoError(t, err)
	err = c.StartTLS(t.Context(), config)
	if err == nil {
		_, err = c.Go("disk")
	}
	if err != nil {
		client.Close()
	}
	return c, <-end, err
}
