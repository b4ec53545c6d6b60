package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"

	"github.com/backstay/backstay/internal/fault"
)

// Key signs statements. It prints as its id.
type Key struct{ private ed25519.PrivateKey }

// PublicKey checks what the key signed.
type PublicKey struct {
	key ed25519.PublicKey
	der []byte
}

const (
	privateBlock = "PRIVATE KEY" // PKCS #8
	publicBlock  = "PUBLIC KEY"  // PKIX
	maxKeyFile   = 64 << 10
)

// NewKey makes a random key.
func NewKey() *Key {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // the random source of the system never fails
	}
	return &Key{private}
}

// String is the key's id: the key itself is printed by nobody.
func (k *Key) String() string { return k.Public().ID() }

// GoString is for %#v.
func (k *Key) GoString() string { return k.String() }

// Public is the key that checks.
func (k *Key) Public() PublicKey {
	public, _ := k.private.Public().(ed25519.PublicKey)
	p, err := newPublicKey(public)
	if err != nil {
		panic(err) // an Ed25519 key has an encoding
	}
	return p
}

// PEM is the key as openssl reads it. It is a secret.
func (k *Key) PEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		panic(err) // an Ed25519 key has an encoding
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der})
}

// ParseKey reads what Key.PEM writes, or openssl genpkey -algorithm ed25519.
func ParseKey(text []byte) (*Key, error) {
	const op = "read evidence key"
	block, rest, err := nextBlock(op, text, privateBlock)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fault.New(op, fault.ErrInvalid, "there is something after the key", "")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fault.New(op, fault.ErrInvalid, "it is no key in PKCS #8", "") // the cause might show some of it
	}
	private, is := parsed.(ed25519.PrivateKey)
	if !is {
		return nil, fault.New(op, fault.ErrInvalid, "it is no Ed25519 key", "")
	}
	return &Key{private}, nil
}

func newPublicKey(key ed25519.PublicKey) (PublicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return PublicKey{key, der}, err
}

// ID is SHA-256 of the key's PKIX encoding, in hexadecimal.
func (k PublicKey) ID() string {
	h := sha256.Sum256(k.der)
	return hex.EncodeToString(h[:])
}

// PEM is the key as openssl reads it.
func (k PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: k.der})
}

// ParsePublicKeys reads one or more of what PublicKey.PEM writes.
func ParsePublicKeys(text []byte) (keys []PublicKey, err error) {
	const op = "read public evidence keys"
	for rest := text; len(keys) == 0 || len(bytes.TrimSpace(rest)) > 0; {
		var block []byte
		if block, rest, err = nextBlock(op, rest, publicBlock); err != nil {
			return nil, err
		}
		parsed, err := x509.ParsePKIXPublicKey(block)
		if err != nil {
			return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
		}
		key, is := parsed.(ed25519.PublicKey)
		if !is {
			return nil, fault.New(op, fault.ErrInvalid, "it is no Ed25519 key", "")
		}
		public, err := newPublicKey(key)
		if err != nil {
			return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
		}
		keys = append(keys, public)
	}
	return keys, nil
}

// nextBlock is the content of a text's first PEM block, and what stands after it.
func nextBlock(op string, text []byte, kind string) (content, rest []byte, err error) {
	if len(text) > maxKeyFile {
		return nil, nil, fault.New(op, fault.ErrInvalid, "it is too long", "")
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, nil, fault.New(op, fault.ErrInvalid, "it is no PEM file", "")
	case block.Type != kind:
		return nil, nil, fault.New(op, fault.ErrInvalid, "it is no "+kind, "`backstay evidence key` prints the public key")
	}
	return block.Bytes, rest, nil
}
