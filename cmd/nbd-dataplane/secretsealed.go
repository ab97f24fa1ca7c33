package main

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"nbd-dataplane/internal/keyval"
)

// secretKeyBytes is the length of the key that another secret is encrypted with: AES-256 in CBC, the only way there is.
const secretKeyBytes = 32

// seal is how a secret is encrypted.
type seal struct {
	keyID string // the secret with the key
	iv    string // in base64
	hasIV bool
}

// unsealed reads an object that holds a secret, and decrypts that where keyid says so.
func unsealed(set *keyval.Set, read func(*keyval.Set) ([]byte, error), secrets findSecret) ([]byte, error) {
	content, err := read(set)
	if err != nil {
		return nil, err
	}
	s := seal{}
	s.iv, s.hasIV = set.Take("iv") // alone it means nothing, and QEMU says nothing of it
	keyID, found := set.Take("keyid")
	if !found {
		return content, nil
	}
	s.keyID = keyID
	return s.open(content, secrets)
}

// open decrypts a secret. It says nothing of whether that was the right key, nor can it: a padding is all there is to see, and one wrong key
// in sixteen finds one.
func (s seal) open(sealed []byte, secrets findSecret) ([]byte, error) {
	key, err := secrets(s.keyID)
	switch {
	case err != nil:
		return nil, err
	case len(key) != secretKeyBytes:
		return nil, wrong(fmt.Sprintf("secret: the key of keyid=%s has %d bytes; it needs %d", s.keyID, len(key), secretKeyBytes),
			fmt.Sprintf("Key should be %d bytes in length", secretKeyBytes))
	case !s.hasIV:
		return nil, wrong("secret: keyid needs iv, in base64, which the secret was encrypted with", "IV is required to decrypt secret")
	}
	iv, err := fromBase64(s.iv)
	switch {
	case err != nil:
		return nil, err
	case len(iv) != aes.BlockSize:
		return nil, fmt.Errorf("IV should be %d bytes in length not %d", aes.BlockSize, len(iv))
	case len(sealed)%aes.BlockSize != 0:
		return nil, fmt.Errorf("Length %d must be a multiple of block size %d", len(sealed), aes.BlockSize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	content := make([]byte, len(sealed))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(content, sealed)
	return unpadded(content)
}

// unpadded leaves out the padding. Of that its last byte is looked at and no other, as QEMU does.
func unpadded(content []byte) ([]byte, error) {
	if len(content) == 0 {
		return content, nil
	}
	padding := int(content[len(content)-1])
	if padding > aes.BlockSize {
		return nil, wrong("secret: it was encrypted with another key or iv than these",
			fmt.Sprintf("Incorrect number of padding bytes (%d) found on decrypted data", padding))
	}
	return content[:len(content)-padding], nil
}
