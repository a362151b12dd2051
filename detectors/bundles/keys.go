package bundles

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"tidegate/pipeline/config"
)

// The types of the PEM blocks of keys: PKCS #8 (RFC 5958) and SubjectPublicKeyInfo (RFC 5280), as openssl writes them.
const (
	privateType = "PRIVATE KEY"
	publicType  = "PUBLIC KEY"
)

// NewKeyPair returns a new key pair as PEM.
func NewKeyPair() (privatePEM, publicPEM []byte, err error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: privateDER}),
		pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: publicDER}), nil
}

// ReadPrivateKey reads a private key from a PEM file, which only its owner may be able to read.
func ReadPrivateKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("read the private key: %s has the mode %04o, so others may read it: chmod 600 %s", path, mode, path)
	}
	text, err := config.ReadRegular(path)
	if err == nil {
		var key ed25519.PrivateKey
		if key, err = parseKey[ed25519.PrivateKey](text, privateType, x509.ParsePKCS8PrivateKey); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("read the private key %s: %w", path, err)
}

// ReadPublicKeys reads a public key from each of the PEM files.
func ReadPublicKeys(paths []string) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for _, path := range paths {
		text, err := config.ReadRegular(path)
		if err != nil {
			return nil, fmt.Errorf("read the public key: %w", err)
		}
		key, err := parseKey[ed25519.PublicKey](text, publicType, x509.ParsePKIXPublicKey)
		if err != nil {
			return nil, fmt.Errorf("read the public key %s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// parseKey parses a PEM file that holds one key of type K.
func parseKey[K any](text []byte, blockType string, parse func([]byte) (any, error)) (key K, err error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return key, errors.New("it is not PEM")
	case block.Type != blockType:
		return key, fmt.Errorf("it holds %q, want %q", block.Type, blockType)
	}
	if more, _ := pem.Decode(rest); more != nil {
		return key, errors.New("it holds more than one key")
	}
	parsed, err := parse(block.Bytes)
	if err != nil {
		return key, err
	}
	key, ok := parsed.(K)
	if !ok {
		return key, fmt.Errorf("it is not an ed25519 key (%T)", parsed)
	}
	return key, nil
}

// PublicKey returns the public key of a private one.
func PublicKey(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// Fingerprint returns the first bytes of the SHA-256 of a public key, in hex, by which people compare keys.
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}
