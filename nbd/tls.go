package nbd

import "fmt"

// TLSMode is a listener's stance on TLS. NBD proto.md, "TLS support"; it never changes while a connection
// lives.
type TLSMode int

// TLS modes.
const (
	TLSOff      TLSMode = iota // NOTLS: no credentials
	TLSOptional                // SELECTIVETLS: some exports, or none, insist on TLS
	TLSRequired                // FORCEDTLS: nothing is served in clear
)

func (m TLSMode) String() string {
	switch m {
	case TLSOff:
		return "off"
	case TLSOptional:
		return "optional"
	case TLSRequired:
		return "required"
	}
	return fmt.Sprintf("TLSMode(%d)", int(m))
}

// UnsupportedTLS is the error for a kind of TLS credentials that other servers have and this one has not.
func UnsupportedTLS(kind string) error {
	switch kind {
	case "tls-creds-psk":
		return fmt.Errorf("%s: Go's TLS has no pre-shared keys; use tls-creds-x509, or put nbdkit in front: "+
			"nbdkit --tls=require --tls-psk=FILE nbd socket=SOCKET", kind)
	case "tls-creds-anon":
		return fmt.Errorf("%s: anonymous TLS protects from nobody in the middle; use tls-creds-x509 with verify-peer=off "+
			"if clients have no certificates", kind)
	}
	return fmt.Errorf("%s: unknown kind of TLS credentials; use tls-creds-x509", kind)
}
