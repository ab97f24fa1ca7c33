// Package pemkey reads private keys in PEM files that a password protects: PKCS#8 with PBES2, as openssl and certtool write them today, and the
// encryption of PEM blocks themselves that openssl wrote of old. What crypto/tls reads comes out of it.
package pemkey
