package nbd

import "errors"

// What can end a handshake without a client in transmission. The errors handshake returns wrap exactly one
// of them, so that the caller can tell whom to blame and how loudly.
var (
	ErrClientLeft = errors.New("client left during the handshake") // closed, or the network did
	ErrAborted    = errors.New("client ended the handshake")       // OPT_ABORT: the polite way to leave
	ErrProtocol   = errors.New("client violated the protocol")     // nothing sensible can follow
	ErrRefused    = errors.New("client was refused")               // EXPORT_NAME has no other way to say no
	ErrDeadline   = errors.New("handshake not finished in time")   // deadline
	ErrCancelled  = errors.New("handshake cancelled")              // the server is going
	ErrTLSFailed  = errors.New("TLS handshake")                    // bad certificate, version, plain bytes
	ErrDenied     = errors.New("client is not authorised")         // by the Authorizer
)
