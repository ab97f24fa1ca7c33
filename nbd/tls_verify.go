package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// verifier decides which certificates of the other end to believe.
type verifier struct {
	// Immutable.
	roots   *x509.CertPool
	revoked *revocations
}

// loadVerifier reads ca-cert.pem and, if it is there, ca-crl.pem.
func loadVerifier(dir string) (*verifier, error) {
	authorities, err := loadAuthorities(dir)
	if err != nil {
		return nil, err
	}
	revoked, err := loadRevocations(dir, authorities)
	if err != nil {
		return nil, err
	}
	v := &verifier{roots: x509.NewCertPool(), revoked: revoked}
	for _, a := range authorities {
		v.roots.AddCert(a)
	}
	return v, nil
}

// protect makes a server's configuration insist on a certificate that v believes.
//
// crypto/tls would verify it as well, with ClientCAs; but then it also sends the names of the authorities in its
// CertificateRequest (RFC 8446 4.2.4), and with these GnuTLS looks for a certificate of a fitting kind, and
// takes a plain RSA key for unfit as soon as RSA is offered with PSS only, which is all that TLS 1.3 has.
// Without names it sends the one certificate it has, and signs with PSS. So the names stay out, and
// the check is done here. docs/decisions/0005-tls-rsa-client-certificates.md.
//
// INVARIANT: no handshake of this configuration succeeds without a certificate of the client that client
// has accepted. Sessions are not resumed, and crypto/tls calls VerifyConnection in all the others;
// it proves by itself that the client has the key.
func (v *verifier) protect(c *tls.Config) {
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(s tls.ConnectionState) error { return v.client(s.PeerCertificates) }
}

// client checks a client's certificates as crypto/tls does it with RequireAndVerifyClientCert.
func (v *verifier) client(certs []*x509.Certificate) error {
	o := x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if err := v.check(certs, o); err != nil {
		return fmt.Errorf("certificate of the client: %w", err)
	}
	return nil
}

// server checks a server's certificates as crypto/tls does it, but takes the common name for the
// host's if the certificate has no alternative names at all, as GnuTLS does.
func (v *verifier) server(certs []*x509.Certificate, hostname string) error {
	leaf := certs[0]
	o := x509.VerifyOptions{DNSName: hostname}
	unnamed := len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) == 0
	if unnamed && leaf.Subject.CommonName == hostname {
		o.DNSName = ""
	}
	if err := v.check(certs, o); err != nil {
		return fmt.Errorf("certificate of the server: %w", err)
	}
	return nil
}

// check looks for a chain from the first certificate to an authority with nothing revoked in it. There is a
// first one: crypto/tls has seen to that.
func (v *verifier) check(certs []*x509.Certificate, o x509.VerifyOptions) error {
	o.Roots, o.Intermediates = v.roots, x509.NewCertPool()
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(o)
	if err != nil {
		return err
	}
	return v.revoked.check(chains, time.Now())
}
