package nbd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: STARTTLS leads to a connection on which everything goes through TLS, of version 1.2 or later, and that says goodbye
// (TLS-4, TLS-8, TLS-9, EN-2). Method: a client of each version; bytes are exchanged after GO, then the server closes.
func TestTLSConnection(t *testing.T) {
	a := newAuthority(t)
	o := handshakeOptions{tls: TLSRequired, credentials: serverTLS(t, a, false)}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13, 0} {
		config := clientTLS(t, a, "")
		config.MaxVersion = version
		c, e, err := connectTLS(t, o, config)
		require.NoError(t, err)
		require.NoError(t, e.err)
		require.True(t, e.peer.TLS)
		require.Empty(t, e.peer.DN)
		require.IsType(t, (*tls.Conn)(nil), e.conn)
		if version != 0 {
			require.Equal(t, version, e.peer.TLSVersion)
		} else {
			require.EqualValues(t, tls.VersionTLS13, e.peer.TLSVersion, "the newest is preferred")
		}
		go e.conn.Write([]byte("reply"))
		b := make([]byte, 5)
		_, err = io.ReadFull(c.Conn(), b)
		require.NoError(t, err)
		require.Equal(t, "reply", string(b))
		go e.conn.Close()
		_, err = c.Conn().Read(b)
		require.Equal(t, io.EOF, err, "close_notify, not a cut connection")
	}
	old := clientTLS(t, a, "")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, e, err := connectTLS(t, o, old)
	require.Error(t, err)
	require.ErrorIs(t, e.err, ErrTLSFailed)
}

// Goal: nothing that was sent in clear behind STARTTLS is taken for an option after TLS (STL-3). Method: the injection of
// CVE-2021-3716: STRUCTURED_REPLY in the same segment as STARTTLS; then a TLS handshake, which cannot succeed.
func TestInjectionBehindSTARTTLS(t *testing.T) {
	a := newAuthority(t)
	client, server := socketPair(t, "tcp")
	end := startHandshake(t.Context(), server, handshakeOptions{tls: TLSOptional, credentials: serverTLS(t, a, false)})
	_, err := io.ReadFull(client, make([]byte, 18))
	require.NoError(t, err)
	b := append(clientHello[:4:4], optionBytes(OptStartTLS, nil)...)
	_, err = client.Write(append(b, optionBytes(OptStructuredReply, nil)...))
	require.NoError(t, err)
	ack := make([]byte, 20)
	_, err = io.ReadFull(client, ack)
	require.NoError(t, err)
	require.Equal(t, "ACK", parseReplies(t, ack)[0].String())
	require.Error(t, tls.Client(client, clientTLS(t, a, "")).Handshake())
	require.ErrorIs(t, (<-end).err, ErrTLSFailed)
}

// Goal: the data of a later option is read through TLS as well, also when it is skipped (TLS-12). Method: a long unknown
// option and a refused LIST after STARTTLS, then GO.
func TestSkippingGoesThroughTLS(t *testing.T) {
	a := newAuthority(t)
	client, server := socketPair(t, "unix")
	end := startHandshake(t.Context(), server, handshakeOptions{tls: TLSRequired, credentials: serverTLS(t, a, false)})
	c, err := NewClient(client)
	require.NoError(t, err)
	require.NoError(t, c.StartTLS(t.Context(), clientTLS(t, a, "")))
	for _, o := range []Option{Option(77), OptList, OptSetMetaContext} {
		var refused *OptionError
		require.ErrorAs(t, c.Ask(o, make([]byte, 1<<17), nil), &refused)
	}
	_, err = c.Go("secret")
	require.NoError(t, err)
	require.NoError(t, (<-end).err)
}

// Goal: names are written as GnuTLS writes them, so that QEMU's rules fit. Method: a certificate with every attribute GnuTLS
// knows and every character that is escaped, and what gnutls_x509_crt_get_dn says of it.
func TestDistinguishedName(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "names.pem"))
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(pemBlocks(data, "CERTIFICATE")[0])
	require.NoError(t, err)
	require.Equal(t, `C=DE,O=Acme\, Inc. \+ \"x\" \\ \<y\>\; =z #,O=\ lead trail\ ,OU=\#hash,L=Z`+"\u00fc"+`rich,ST=st,street=street,`+
		`DC=example,UID=uid1,serialNumber=SN1,EMAIL=a@b,title=title,surName=sur,givenName=given,initials=ini,pseudonym=pseudo,`+
		`dnQualifier=dnq,name=nm,2.5.4.97=#13056f72676964,postalCode=postal,1.2.3.4.5=#1303756e6b,description=descr,`+
		`generationQualifier=III,telephoneNumber=tel,businessCategory=bc,CN=cn+UID=multi,CN=nl`+"\nx\x01y", distinguishedName(cert.RawSubject))
	bmp := []byte{0x30, 15, 0x31, 13, 0x30, 11, 0x06, 3, 0x55, 4, 3, 0x1e, 4, 0, 'h', 0, 'i'}
	require.Equal(t, "CN=hi", distinguishedName(bmp))
	bmp[11] = asn1.TagInteger
	require.Equal(t, "CN=#020400680069", distinguishedName(bmp), "no string")
	require.Empty(t, distinguishedName(nil))
	require.Empty(t, distinguishedName([]byte{0x30, 0}))
	require.Empty(t, distinguishedName([]byte("garbage")))
}

// Goal: a client believes only the server it asked for. Method: certificates with a name in the alternative names, in the
// subject alone, with another one, and from a stranger.
func TestClientVerifiesTheServer(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	cases := []struct {
		name   string
		by     *authority
		common string
		change func(*x509.Certificate)
		ok     bool
	}{
		{"alternative name", a, "x", func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }, true},
		{"common name alone", a, "localhost", nil, true},
		{"common name beside another", a, "localhost", func(c *x509.Certificate) { c.DNSNames = []string{"other"} }, false},
		{"another", a, "other", nil, false},
		{"stranger", stranger, "localhost", nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cert, key := c.by.issue(c.common, c.change)
			credentials, err := LoadTLS(TLSFiles{Dir: c.by.directory(fileServerCert, fileServerKey, cert, key), VerifyPeer: false}, nil)
			require.NoError(t, err)
			_, _, err = connectTLS(t, handshakeOptions{tls: TLSRequired, credentials: credentials}, clientTLS(t, a, ""))
			require.Equal(t, c.ok, err == nil, "%v", err)
		})
	}
	_, err := LoadClientTLS(TLSFiles{Dir: t.TempDir(), VerifyPeer: true}, "")
	require.ErrorContains(t, err, "tls-hostname")
	_, err = LoadClientTLS(TLSFiles{Dir: t.TempDir(), VerifyPeer: false}, "")
	require.NoError(t, err)
}

// Goal: new certificates are used without a restart, and files that are half replaced do no harm. Method: the pair is
// replaced file by file while clients connect.
func TestCredentialsAreReread(t *testing.T) {
	a := newAuthority(t)
	dir := a.serverDirectory()
	var reported []error
	credentials, err := LoadTLS(TLSFiles{Dir: dir, VerifyPeer: false}, func(err error) { reported = append(reported, err) })
	require.NoError(t, err)
	serial := func() int64 {
		config, err := credentials.config().GetConfigForClient(nil)
		require.NoError(t, err)
		return config.Certificates[0].Leaf.SerialNumber.Int64()
	}
	first := serial()
	require.Equal(t, first, serial())

	cert, key := a.issue("localhost", nil)
	other := a.directory(fileServerCert, fileServerKey, cert, key)
	replace := func(name string) {
		require.NoError(t, os.Rename(filepath.Join(other, name), filepath.Join(dir, name)))
	}
	replace(fileServerCert)
	require.Equal(t, first, serial(), "certificate without its key")
	require.Equal(t, first, serial())
	require.Len(t, reported, 1, "told once")
	require.ErrorContains(t, reported[0], fileServerKey)
	replace(fileServerKey)
	require.Equal(t, cert.SerialNumber.Int64(), serial())
	require.Len(t, reported, 1)
}

// Goal: bad credentials are refused at start with the file and the remedy. Method: directories that lack or spoil one file.
func TestBadCredentials(t *testing.T) {
	a := newAuthority(t)
	spoil := func(name, text string) func(string) {
		return func(dir string) { require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)) }
	}
	remove := func(name string) func(string) {
		return func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	reissue := func(change func(*x509.Certificate)) func(string) {
		return func(dir string) {
			cert, key := a.issue("localhost", change)
			a.store(dir, fileServerCert, fileServerKey, cert, key)
		}
	}
	cases := []struct {
		name  string
		harm  func(dir string)
		wants []string
	}{
		{"no certificate", remove(fileServerCert), []string{fileServerCert, "needs this file"}},
		{"no key", remove(fileServerKey), []string{fileServerKey, "needs this file"}},
		{"no authority", remove(fileCACert), []string{fileCACert, "needs this file"}},
		{"certificate is garbage", spoil(fileServerCert, "garbage"), []string{fileServerCert, "PEM"}},
		{"key is garbage", spoil(fileServerKey, "garbage"), []string{fileServerKey, "PEM"}},
		{"authority is garbage", spoil(fileCACert, "garbage"), []string{fileCACert, "PEM"}},
		{"revocations are garbage", spoil(fileCACRL, "garbage"), []string{fileCACRL, "remove"}},
		{"expired", reissue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), []string{fileServerCert, "expired", "renew"}},
		{"not yet", reissue(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), []string{fileServerCert, "not valid before", "clock"}},
		{"for clients", reissue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), []string{fileServerCert, "purpose"}},
		{"authority is none", func(dir string) {
			cert, _ := a.issue("x", func(c *x509.Certificate) { c.BasicConstraintsValid = true })
			writePEM(t, filepath.Join(dir, fileCACert), "CERTIFICATE", cert.Raw)
		}, []string{fileCACert, "authority"}},
		{"revocations of another", func(dir string) { newAuthority(t).revoke(dir, time.Now().Add(time.Hour)) }, []string{fileCACRL, "not signed"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := a.serverDirectory()
			c.harm(dir)
			_, err := LoadTLS(TLSFiles{Dir: dir, VerifyPeer: true}, nil)
			for _, want := range c.wants {
				require.ErrorContains(t, err, want)
			}
		})
	}
	for kind, want := range map[string]string{"tls-creds-psk": "nbdkit", "tls-creds-anon": "tls-creds-x509", "tls-creds-x": "unknown"} {
		require.ErrorContains(t, UnsupportedTLS(kind), want)
	}
}

// Goal: plain bytes where TLS is due end the connection (TLS-4, GEN-8). Method: a client that goes on in clear after the ACK.
func TestPlainBytesInsteadOfTLS(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	config := serverTLS(t, newAuthority(t), false)
	end := make(chan error, 1)
	go func() {
		_, _, _, err := handshake(context.Background(), server, testExports(), handshakeOptions{tls: TLSOptional, credentials: config})
		end <- err
	}()
	c, err := NewClient(client)
	require.NoError(t, err)
	require.NoError(t, c.Ask(OptStartTLS, nil, nil))
	go io.Copy(io.Discard, client)
	client.Write(optionBytes(OptGo, info("disk")))
	require.ErrorIs(t, <-end, ErrTLSFailed)
}
