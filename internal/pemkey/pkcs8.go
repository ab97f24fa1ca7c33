package pemkey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// iterationsMax bounds the work that a file may ask for: some seconds. What is written today has from 2048 to a million.
const iterationsMax = 10_000_000

// encryptedKey is EncryptedPrivateKeyInfo. RFC 5958 3.
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// pbes2 is PBES2-params. RFC 8018 A.4.
type pbes2 struct {
	KeyDerivation pkix.AlgorithmIdentifier
	Encryption    pkix.AlgorithmIdentifier
}

// pbkdf2Params is PBKDF2-params, with a salt that is given. RFC 8018 A.2.
type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// prf is a pseudorandom function of PBKDF2: HMAC with a hash. RFC 8018 B.1.
type prf struct {
	oid  asn1.ObjectIdentifier
	hash func() hash.Hash
}

var prfs = []prf{
	{nil, sha1.New}, // if none is named
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}, sha1.New},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 8}, sha256.New224},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, sha256.New},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}, sha512.New384},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}, sha512.New},
}

// scheme is a block cipher in CBC mode. RFC 8018 B.2.
type scheme struct {
	oid      asn1.ObjectIdentifier
	keyBytes int
	cipher   func(key []byte) (cipher.Block, error)
}

var schemes = []scheme{
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}, 16, aes.NewCipher},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}, 24, aes.NewCipher},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, 32, aes.NewCipher},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}, 24, des.NewTripleDESCipher},
}

// errForm is the error about what does not follow the RFCs.
var errForm = errors.New("encrypted PKCS#8: not well formed")

// remedy tells how to get a key that can be read out of one that cannot.
const remedy = "'openssl pkey -in KEY -aes256 -out NEW' writes one that is read"

// decryptPKCS8 returns the PrivateKeyInfo in an EncryptedPrivateKeyInfo.
func decryptPKCS8(der, password []byte) ([]byte, error) {
	var key encryptedKey
	if !parse(der, &key) {
		return nil, errForm
	}
	if !key.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, fmt.Errorf("encrypted PKCS#8: %v is not PBES2; %s", key.Algorithm.Algorithm, remedy)
	}
	var params pbes2
	if !parse(key.Algorithm.Parameters.FullBytes, &params) {
		return nil, errForm
	}
	s, iv, err := params.scheme()
	if err != nil {
		return nil, err
	}
	secret, err := params.derive(password, s.keyBytes)
	if err != nil {
		return nil, err
	}
	block, err := s.cipher(secret)
	if err != nil {
		return nil, fmt.Errorf("encrypted PKCS#8: %w", err)
	}
	return decryptCBC(block, iv, key.Data)
}

// scheme finds the cipher and its initialization vector.
func (p *pbes2) scheme() (s scheme, iv []byte, err error) {
	for _, s := range schemes {
		if s.oid.Equal(p.Encryption.Algorithm) {
			if !parse(p.Encryption.Parameters.FullBytes, &iv) {
				return s, nil, errForm
			}
			return s, iv, nil
		}
	}
	return s, nil, fmt.Errorf("encrypted PKCS#8: cipher %v is not known; %s", p.Encryption.Algorithm, remedy)
}

// derive makes a key of a password.
func (p *pbes2) derive(password []byte, keyBytes int) ([]byte, error) {
	if !p.KeyDerivation.Algorithm.Equal(oidPBKDF2) {
		return nil, fmt.Errorf("encrypted PKCS#8: key derivation %v is not PBKDF2; %s", p.KeyDerivation.Algorithm, remedy)
	}
	var params pbkdf2Params
	if !parse(p.KeyDerivation.Parameters.FullBytes, &params) || params.KeyLength != 0 && params.KeyLength != keyBytes {
		return nil, errForm
	}
	if params.Iterations < 1 || params.Iterations > iterationsMax {
		return nil, fmt.Errorf("encrypted PKCS#8: %d iterations are not from 1 to %d", params.Iterations, iterationsMax)
	}
	for _, f := range prfs {
		if f.oid.Equal(params.PRF.Algorithm) {
			return pbkdf2.Key(f.hash, string(password), params.Salt, params.Iterations, keyBytes)
		}
	}
	return nil, fmt.Errorf("encrypted PKCS#8: pseudorandom function %v is not known; %s", params.PRF.Algorithm, remedy)
}

// decryptCBC decrypts data and takes the padding off. RFC 8018 6.1.1. With a wrong password there is none, or what is inside is no key.
func decryptCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	size := block.BlockSize()
	if len(iv) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, errForm
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	padding := int(plain[len(plain)-1])
	if padding < 1 || padding > size || !bytes.Equal(plain[len(plain)-padding:], bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, ErrPassword
	}
	plain = plain[:len(plain)-padding]
	if !isSequence(plain) {
		return nil, ErrPassword
	}
	return plain, nil
}

// parse decodes all of der.
func parse(der []byte, to any) bool {
	rest, err := asn1.Unmarshal(der, to)
	return err == nil && len(rest) == 0
}

// isSequence reports whether der is one SEQUENCE and nothing else, as every private key is.
func isSequence(der []byte) bool {
	var value asn1.RawValue
	return parse(der, &value) && value.Class == asn1.ClassUniversal && value.Tag == asn1.TagSequence
}
