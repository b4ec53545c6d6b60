// Package evidence makes statements of what was done to restore points, signs them, chains them, and checks the chain. It speaks to
// nothing: who keeps the statements, and where, is others' business.
//
// A statement is an in-toto statement in a DSSE envelope, signed with Ed25519. Each names the statements that nothing followed yet
// when it was made, by their hashes: they form a graph, for several processes write into one vault, and one that is dropped is missed
// by those after it.
package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/backstay/backstay/internal/fault"
)

// MaxLine is the most bytes that the line of one envelope has.
const MaxLine = 4 << 20

// envelope is a DSSE envelope as JSON: https://github.com/secure-systems-lab/dsse.
type envelope struct {
	Payload     string      `json:"payload"` // base64
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"` // none, or one
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"` // base64
}

// encoding is base64 with one spelling for each value.
var encoding = base64.StdEncoding.Strict() //nolint:gochecknoglobals // never changed

// preAuth is what is signed: DSSE's encoding of the payload with its type, which leaves no doubt where either ends.
func preAuth(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// seal puts a payload into an envelope, on one line. A nil key leaves it unsigned.
func seal(payloadType string, payload []byte, key *Key) ([]byte, error) {
	e := envelope{Payload: encoding.EncodeToString(payload), PayloadType: payloadType, Signatures: []signature{}}
	if key != nil {
		sig := ed25519.Sign(key.private, preAuth(payloadType, payload))
		e.Signatures = append(e.Signatures, signature{key.Public().ID(), encoding.EncodeToString(sig)})
	}
	return json.Marshal(e)
}

// sealed is an envelope that was read.
type sealed struct {
	line        []byte
	payloadType string
	payload     []byte
	keyID       string // empty where it is unsigned
	sig         []byte
}

// open reads an envelope. There is one way to write each, so that no byte of the line can be changed unnoticed.
func open(line []byte) (*sealed, error) {
	if len(line) > MaxLine {
		return nil, corrupt("it is longer than %d bytes", MaxLine)
	}
	var e envelope
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, corrupt("it is no envelope")
	}
	if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, line) || e.Signatures == nil {
		return nil, corrupt("it is not as it was written")
	}
	payload, err := encoding.DecodeString(e.Payload)
	if err != nil {
		return nil, corrupt("its payload is damaged")
	}
	s := &sealed{line: line, payloadType: e.PayloadType, payload: payload}
	switch len(e.Signatures) {
	case 0:
		return s, nil
	case 1:
		s.keyID = e.Signatures[0].KeyID
		if s.sig, err = encoding.DecodeString(e.Signatures[0].Sig); err != nil || s.keyID == "" {
			return nil, corrupt("its signature is damaged")
		}
		return s, nil
	}
	return nil, corrupt("it has %d signatures", len(e.Signatures))
}

// Reasons why a signature does not count.
var (
	errUnsigned = errors.New("it is not signed")
	errForeign  = errors.New("it is signed with a key that is not among those given")
	errForged   = errors.New("its signature is not of what it says")
)

// signedBy checks the signature.
func (s *sealed) signedBy(keys []PublicKey) error {
	if s.keyID == "" {
		return errUnsigned
	}
	for _, k := range keys {
		if k.ID() != s.keyID {
			continue
		}
		if !ed25519.Verify(k.key, preAuth(s.payloadType, s.payload), s.sig) {
			return errForged
		}
		return nil
	}
	return errForeign
}

// hashOf is how statements name each other: SHA-256 of the line, in hexadecimal.
func hashOf(line []byte) string {
	h := sha256.Sum256(line)
	return hex.EncodeToString(h[:])
}

func corrupt(format string, a ...any) error {
	return fault.New("", fault.ErrCorrupt, fmt.Sprintf(format, a...), "")
}
