package nbd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// revocations is the content of ca-crl.pem: which certificates their authorities have taken back.
type revocations struct {
	path    string
	revoked map[string]bool // issuer and serial number
	expires time.Time       // when the first of the lists does; zero if there is none
}

// loadRevocations reads ca-crl.pem, which need not exist. Only lists of our own authorities count.
func loadRevocations(dir string, authorities []*x509.Certificate) (*revocations, error) {
	r := &revocations{path: filepath.Join(dir, fileCACRL), revoked: map[string]bool{}}
	data, err := readCredential(dir, fileCACRL)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	lists := pemBlocks(data, "X509 CRL")
	if len(lists) == 0 {
		return nil, fmt.Errorf("TLS: %s: no PEM revocation list in it; remove the file if there is none", r.path)
	}
	for _, der := range lists {
		if err := r.add(der, authorities); err != nil {
			return nil, fmt.Errorf("TLS: %s: %w", r.path, err)
		}
	}
	return r, nil
}

// add takes one list in, if one of the authorities has signed it.
func (r *revocations) add(der []byte, authorities []*x509.Certificate) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if !signedByOne(list, authorities) {
		return fmt.Errorf("the list of %q is not signed by an authority in %s", list.Issuer, fileCACert)
	}
	for _, e := range list.RevokedCertificateEntries {
		r.revoked[string(list.RawIssuer)+"#"+e.SerialNumber.String()] = true
	}
	if !list.NextUpdate.IsZero() && (r.expires.IsZero() || list.NextUpdate.Before(r.expires)) {
		r.expires = list.NextUpdate
	}
	return nil
}

func signedByOne(list *x509.RevocationList, authorities []*x509.Certificate) bool {
	for _, a := range authorities {
		if list.CheckSignatureFrom(a) == nil {
			return true
		}
	}
	return false
}

// check passes if one of the chains is free of revoked certificates. A list past its date admits nobody:
// what it does not say may have been revoked since.
func (r *revocations) check(chains [][]*x509.Certificate, now time.Time) error {
	if !r.expires.IsZero() && now.After(r.expires) {
		return fmt.Errorf("%s: the revocation list expired at %s: put a new one there", r.path, r.expires.Format(time.RFC3339))
	}
	var err error
	for _, chain := range chains {
		if err = r.checkChain(chain); err == nil {
			return nil
		}
	}
	return err
}

func (r *revocations) checkChain(chain []*x509.Certificate) error {
	for _, c := range chain {
		if r.revoked[string(c.RawIssuer)+"#"+c.SerialNumber.String()] {
			return fmt.Errorf("certificate %q (serial %v) is revoked by %s", c.Subject, c.SerialNumber, r.path)
		}
	}
	return nil
}
