package nbd

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tlsVersions are those that are spoken.
var tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// clientShowing is the configuration of a client that speaks one version and shows a certificate, or none,
// whatever it is asked for.
func clientShowing(t *testing.T, a *authority, version uint16, cert *x509.Certificate, key crypto.Signer) *tls.Config {
	config := clientTLS(t, a, "")
	config.MinVersion, config.MaxVersion = version, version
	if cert != nil {
		pair := tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config
}

// Goal: with verify-peer a client needs a certificate of ours, with its key, that nobody has revoked. Method: clients with a good one, with
// none, with a stranger's, with one that is expired, revoked, signed with SHA-1, for servers, or another's; authorities with ECDSA and with RSA,
// over both versions of TLS.
func TestVerifyPeer(t *testing.T) {
	for _, kind := range []keyKind{keyECDSA, keyRSA} {
		a, stranger := newAuthorityOf(t, kind), newAuthorityOf(t, kind)
		dir := a.serverDirectory()
		good, key := a.issue("good", nil)
		late := a.sign("late", key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
		bad := a.sign("bad", key, nil)
		server := a.sign("server", key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		weak := a.sign("weak", key, func(c *x509.Certificate) {
			c.SignatureAlgorithm = map[keyKind]x509.SignatureAlgorithm{keyECDSA: x509.ECDSAWithSHA1, keyRSA: x509.SHA1WithRSA}[kind]
		})
		a.revoke(dir, time.Now().Add(time.Hour), bad)
		credentials, err := LoadTLS(TLSFiles{Dir: dir, VerifyPeer: true}, nil)
		require.NoError(t, err)

		cases := []struct {
			name string
			cert *x509.Certificate
			key  crypto.Signer
			says string // "" = it may come in
		}{
			{"good", good, key, ""},
			{"none", nil, nil, "didn't provide"},
			{"stranger", stranger.sign("good", key, nil), key, "unknown authority"},
			{"expired", late, key, "expired"},
			{"revoked", bad, key, "revoked"},
			{"for servers", server, key, "usage"},
			{"SHA-1", weak, key, "SHA1"},
			{"another's", good, newKey(t, kind), "signature"},
		}
		for _, c := range cases {
			for _, version := range tlsVersions {
				t.Run(fmt.Sprint(c.name, " ", kind, " ", tls.VersionName(version)), func(t *testing.T) {
					o := handshakeOptions{tls: TLSRequired, credentials: credentials}
					_, e, err := connectTLS(t, o, clientShowing(t, a, version, c.cert, c.key))
					if c.says != "" {
						require.Error(t, err)
						require.ErrorIs(t, e.err, ErrTLSFailed)
						require.ErrorContains(t, e.err, c.says)
						return
					}
					require.NoError(t, err)
					require.NoError(t, e.err)
					require.Equal(t, `O=Acme\, Inc.,CN=good`, e.peer.DN)
				})
			}
		}
		a.revoke(dir, time.Now().Add(-time.Minute))
		_, e, err := connectTLS(t, handshakeOptions{tls: TLSRequired, credentials: credentials}, clientTLS(t, a, "good"))
		require.Error(t, err, "a list past its date")
		require.ErrorContains(t, e.err, "expired")
	}
}

// Goal: a client's certificate counts whatever the kinds of its key and of its authority's, and over the newest version both sides speak. Method:
// each kind of authority with each kind of client; a client that may choose gets TLS 1.3, and a rule for the name lets in the one and not another.
func TestClientKeysOfAllKinds(t *testing.T) {
	authorities := []struct {
		kind      keyKind
		signature x509.SignatureAlgorithm
	}{{keyECDSA, 0}, {keyRSA, x509.SHA256WithRSA}, {keyRSA, x509.SHA256WithRSAPSS}, {keyEd25519, 0}}
	versions := []struct{ clientMax, agreed uint16 }{{tls.VersionTLS12, tls.VersionTLS12}, {0, tls.VersionTLS13}}
	keys := map[keyKind]crypto.Signer{}
	for _, kind := range []keyKind{keyECDSA, keyRSA, keyEd25519} {
		keys[kind] = newKey(t, kind)
	}
	for _, by := range authorities {
		a := newAuthorityOf(t, by.kind)
		credentials := serverTLS(t, a, true)
		for kind, key := range keys {
			for _, v := range versions {
				t.Run(fmt.Sprint(by.kind, " ", by.signature, " for ", kind, " ", tls.VersionName(v.agreed)), func(t *testing.T) {
					cert := a.sign("good", key, func(c *x509.Certificate) { c.SignatureAlgorithm = by.signature })
					config := clientTLS(t, a, "")
					config.MaxVersion = v.clientMax
					config.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
					o := handshakeOptions{tls: TLSRequired, credentials: credentials, authorizer: AuthzSimple{`O=Acme\, Inc.,CN=good`}}
					_, e, err := connectTLS(t, o, config)
					require.NoError(t, err)
					require.NoError(t, e.err)
					require.Equal(t, v.agreed, e.peer.TLSVersion)
					require.Equal(t, `O=Acme\, Inc.,CN=good`, e.peer.DN)

					o.authorizer = AuthzSimple{"CN=good"}
					_, e, err = connectTLS(t, o, config)
					require.Error(t, err)
					require.ErrorIs(t, e.err, ErrDenied)
				})
			}
		}
	}
}

// Goal: without verify-peer nobody has a name, so that no rule lets anybody in by one. Method: a client that has a certificate would show it to anybody;
// with an authorizer it is denied.
func TestNoNameWithoutVerifyPeer(t *testing.T) {
	for _, kind := range []keyKind{keyECDSA, keyRSA} {
		a := newAuthorityOf(t, kind)
		o := handshakeOptions{tls: TLSRequired, credentials: serverTLS(t, a, false)}
		_, e, err := connectTLS(t, o, clientTLS(t, a, "good"))
		require.NoError(t, err)
		require.NoError(t, e.err)
		require.EqualValues(t, tls.VersionTLS13, e.peer.TLSVersion)
		require.Empty(t, e.peer.DN)

		o.authorizer = AuthzSimple{`O=Acme\, Inc.,CN=good`}
		_, e, err = connectTLS(t, o, clientTLS(t, a, "good"))
		require.Error(t, err)
		require.ErrorIs(t, e.err, ErrDenied)
	}
}

// Goal: the request for a certificate keeps no client from showing the one it has: GnuTLS passes an RSA key over if the request names authorities and has
// RSA with PSS only. Method: the request as a client sees it, per version: no authority, RSA with PSS, and no SHA-1.
func TestCertificateRequest(t *testing.T) {
	a := newAuthorityOf(t, keyRSA)
	o := handshakeOptions{tls: TLSRequired, credentials: serverTLS(t, a, true)}
	for _, version := range tlsVersions {
		var request *tls.CertificateRequestInfo
		config := clientTLS(t, a, "good")
		config.MaxVersion = version
		config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			request = r
			return &config.Certificates[0], nil
		}
		_, e, err := connectTLS(t, o, config)
		require.NoError(t, err)
		require.Equal(t, version, e.peer.TLSVersion)
		require.Empty(t, request.AcceptableCAs)
		require.Contains(t, request.SignatureSchemes, tls.PSSWithSHA256)
		require.NotContains(t, request.SignatureSchemes, tls.PKCS1WithSHA1)
		require.NotContains(t, request.SignatureSchemes, tls.ECDSAWithSHA1)
	}
}
