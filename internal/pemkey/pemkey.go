package pemkey

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrPassword says that a key is encrypted with another password.
	ErrPassword = errors.New("the password is wrong")
	// ErrNoPassword says that a key is encrypted and there is no password.
	ErrNoPassword = errors.New("the key is encrypted and no password is given")
)

// Decrypt returns data, a PEM file, with its private keys in clear. Keys that are so already, certificates and what is no PEM come back as they
// are. A nil password is none at all; an empty one is one.
func Decrypt(data, password []byte) ([]byte, error) {
	var clear []byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		opened, err := open(block, password)
		if err != nil {
			return nil, err
		}
		clear = append(clear, pem.EncodeToMemory(opened)...)
	}
	if clear == nil {
		return data, nil
	}
	return clear, nil
}

const (
	kindEncrypted = "ENCRYPTED PRIVATE KEY"
	kindClear     = "PRIVATE KEY"
)

// open returns a block that is not encrypted.
func open(block *pem.Block, password []byte) (*pem.Block, error) {
	legacy := strings.HasSuffix(block.Type, kindClear) && x509.IsEncryptedPEMBlock(block)
	switch {
	case block.Type != kindEncrypted && !legacy:
		return block, nil
	case password == nil:
		return nil, ErrNoPassword
	case legacy:
		return openLegacy(block, password)
	}
	der, err := decryptPKCS8(block.Bytes, password)
	if err != nil {
		return nil, err
	}
	return &pem.Block{Type: kindClear, Bytes: der}, nil
}

// openLegacy decrypts a block with a DEK-Info header. RFC 1421 4.6.1.3.
func openLegacy(block *pem.Block, password []byte) (*pem.Block, error) {
	der, err := x509.DecryptPEMBlock(block, password)
	switch {
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, ErrPassword
	case err != nil:
		return nil, fmt.Errorf("encrypted PEM block: %w", err)
	case !isSequence(der):
		return nil, ErrPassword
	}
	return &pem.Block{Type: block.Type, Bytes: der}, nil
}
