package nbd

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nbd-dataplane/internal/pemkey"
)

// Names of the files in a directory of credentials. QEMU, nbdkit and libvirt use the same.
const (
	fileCACert     = "ca-cert.pem"
	fileCACRL      = "ca-crl.pem"
	fileServerCert = "server-cert.pem"
	fileServerKey  = "server-key.pem"
	fileClientCert = "client-cert.pem"
	fileClientKey  = "client-key.pem"
)

// tlsVersionMin is the oldest TLS spoken. NBD proto.md, "TLS versions", asks for 1.2.
const tlsVersionMin = tls.VersionTLS12

// TLSFiles are the credentials of one end of TLS.
type TLSFiles struct {
	// Dir has the files.
	Dir string
	// VerifyPeer has the other end prove who it is.
	VerifyPeer bool
	// Password is that of the key; nil = it has none.
	Password []byte
}

// loadServerConfig reads what a server needs. With VerifyPeer a client has to show a certificate
// that an authority in ca-cert.pem has signed and no list in ca-crl.pem revokes.
func loadServerConfig(f TLSFiles) (*tls.Config, error) {
	pair, err := loadPair(f, fileServerCert, fileServerKey, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:   tlsVersionMin,
		Certificates: []tls.Certificate{pair},
		// A resumed session would skip looking at a certificate that was revoked meanwhile; NBD
		// connections are few and long.
		SessionTicketsDisabled: true,
	}
	if !f.VerifyPeer {
		return c, nil
	}
	v, err := loadVerifier(f.Dir)
	if err != nil {
		return nil, err
	}
	v.protect(c)
	return c, nil
}

// LoadClientTLS reads what a client needs: the authorities to believe, unless VerifyPeer is off,
// and a certificate of its own if there is one. The server has to prove that it is hostname.
func LoadClientTLS(f TLSFiles, hostname string) (*tls.Config, error) {
	// The verification that crypto/tls would do knows nothing of names in the subject, which is where
	// many a certificate made for QEMU has its name. verifier.server does all of it.
	c := &tls.Config{MinVersion: tlsVersionMin, ServerName: hostname, InsecureSkipVerify: true}
	pair, err := loadPair(f, fileClientCert, fileClientKey, x509.ExtKeyUsageClientAuth)
	switch {
	case err == nil:
		c.Certificates = []tls.Certificate{pair}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if !f.VerifyPeer {
		return c, nil
	}
	if hostname == "" {
		return nil, fmt.Errorf("TLS: the server's host name is not known: set tls-hostname to the name in its certificate")
	}
	v, err := loadVerifier(f.Dir)
	if err != nil {
		return nil, err
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return v.server(s.PeerCertificates, hostname) }
	return c, nil
}

// loadPair reads a certificate and its key and looks for the mistakes that would otherwise be noticed by
// the first client.
func loadPair(f TLSFiles, certName, keyName string, use x509.ExtKeyUsage) (tls.Certificate, error) {
	var none tls.Certificate
	cert, err := readCredential(f.Dir, certName)
	if err != nil {
		return none, err
	}
	key, err := readCredential(f.Dir, keyName)
	if err != nil {
		return none, err
	}
	certPath, keyPath := filepath.Join(f.Dir, certName), filepath.Join(f.Dir, keyName)
	if key, err = pemkey.Decrypt(key, f.Password); err != nil {
		return none, fmt.Errorf("TLS: %s: %w%s", keyPath, err, passwordHint(err))
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return none, fmt.Errorf("TLS: %s with %s: %w: they must be one PEM certificate and its own key", certPath, keyPath, err)
	}
	if err := checkDates(pair.Leaf, time.Now()); err != nil {
		return none, fmt.Errorf("TLS: %s: %w", certPath, err)
	}
	uses := pair.Leaf.ExtKeyUsage
	if len(uses) > 0 && !slices.Contains(uses, use) && !slices.Contains(uses, x509.ExtKeyUsageAny) {
		return none, fmt.Errorf("TLS: %s: made for another purpose: its extended key usage lacks the one for this end of TLS", certPath)
	}
	return pair, nil
}

// passwordHint says what to do about a key that is encrypted.
func passwordHint(err error) string {
	if errors.Is(err, pemkey.ErrNoPassword) {
		return ": name the secret that has it by passwordid"
	}
	return ""
}

// checkDates reports a certificate that is not valid now.
func checkDates(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("expired at %s: renew it", c.NotAfter.Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("not valid before %s: check the clock", c.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// loadAuthorities reads ca-cert.pem.
func loadAuthorities(dir string) ([]*x509.Certificate, error) {
	data, err := readCredential(dir, fileCACert)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fileCACert)
	var authorities []*x509.Certificate
	for _, der := range pemBlocks(data, "CERTIFICATE") {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("TLS: %s: %w", path, err)
		}
		if c.BasicConstraintsValid && !c.IsCA {
			return nil, fmt.Errorf("TLS: %s: %q is not the certificate of an authority", path, c.Subject)
		}
		authorities = append(authorities, c)
	}
	if len(authorities) == 0 {
		return nil, fmt.Errorf("TLS: %s: no PEM certificate in it", path)
	}
	return authorities, nil
}

// readCredential reads one file of a directory and says what to do if it is not there.
func readCredential(dir, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("TLS: %w: the directory of credentials needs this file", err)
	case err != nil:
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return data, nil
}

// pemBlocks returns the contents of the blocks of one kind.
func pemBlocks(data []byte, kind string) [][]byte {
	var found [][]byte
	for {
		block, rest := pem.Decode(bytes.TrimSpace(data))
		if block == nil {
			return found
		}
		if block.Type == kind {
			found = append(found, block.Bytes)
		}
		data = rest
	}
}
