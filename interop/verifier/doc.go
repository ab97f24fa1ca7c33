// Package verifier is an NBD client that knows what it has to read: it writes versions of blocks, remembers what was acknowledged, and
// compares. It keeps many requests in flight, lives through being thrown out, and counts what went wrong. It shares no code with
// the server.
package verifier
