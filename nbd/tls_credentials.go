package nbd

import (
	"crypto/tls"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// TLSCredentials is a directory with the certificates of a server. Certificates are renewed while a
// server runs: each new connection is met with what the files say then. Analogous to QEMU's
// tls-creds-x509, which has to be told.
//
// INVARIANT: a connection under these credentials has certificates of its peer only if they were verified. This
// is why a server is given credentials and not a tls.Config: one that asks for certificates and
// believes any would let everybody choose a name.
type TLSCredentials struct {
	// Immutable.
	files  TLSFiles
	report func(error) // told, once, of files that cannot be used; may be nil

	// Guarded by mu.
	mu      sync.Mutex
	stamps  [len(serverFiles)]fileStamp // of the files as they were looked at last
	current *tls.Config                 // from the last files that were good
}

// serverFiles are the files whose change is noticed.
var serverFiles = [...]string{fileServerCert, fileServerKey, fileCACert, fileCACRL}

// fileStamp tells one state of a file from another; the zero value is that of no file.
type fileStamp struct {
	dev, ino uint64
	size     int64
	modified syscall.Timespec
	changed  syscall.Timespec
}

// LoadTLS reads the credentials of a server: server-cert.pem and server-key.pem; with VerifyPeer, which asks
// clients for certificates, ca-cert.pem; and ca-crl.pem if it is there. Later on files that turned bad are
// reported to report and change nothing.
func LoadTLS(f TLSFiles, report func(error)) (*TLSCredentials, error) {
	c := &TLSCredentials{files: f, report: report}
	c.stamps = c.look()
	config, err := loadServerConfig(f)
	if err != nil {
		return nil, err
	}
	c.current = config
	return c, nil
}

// config returns a configuration that follows the files.
func (c *TLSCredentials) config() *tls.Config {
	return &tls.Config{
		MinVersion: tlsVersionMin,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return c.fresh(), nil
		},
	}
}

// fresh returns the configuration of the files as they are. While they are being replaced, certificate and
// key may not fit; then the old ones serve on, and the next change is looked at again.
func (c *TLSCredentials) fresh() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Before reading: a change that comes in between shows as another stamp next time.
	now := c.look()
	if now == c.stamps {
		return c.current
	}
	c.stamps = now
	config, err := loadServerConfig(c.files)
	if err == nil {
		c.current = config
	} else if c.report != nil {
		c.report(err)
	}
	return c.current
}

func (c *TLSCredentials) look() (stamps [len(serverFiles)]fileStamp) {
	for i, name := range serverFiles {
		if info, err := os.Stat(filepath.Join(c.files.Dir, name)); err == nil {
			stamps[i] = stampOf(info)
		}
	}
	return stamps
}

func stampOf(info fs.FileInfo) fileStamp {
	s := fileStamp{size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino, s.modified, s.changed = uint64(st.Dev), st.Ino, st.Mtim, st.Ctim
	}
	return s
}
