package vault

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/snapshot"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// The catalogue lies beside kopia's blobs, under names that kopia leaves alone. It is written after what it tells of, and holds
// what is needed to notice, and to mend, the loss of anything of kopia's.
const (
	cataloguePrefix blob.ID = "b"
	pointPrefix     blob.ID = "bp" // + id: a published point
	tombstonePrefix blob.ID = "bt" // + id: that point has expired
	holdPrefix      blob.ID = "bh" // + id of the point + random: a hold
	proofPrefix     blob.ID = "bd" // + id of the point + random: what the newest drill of it found
	evidencePrefix  blob.ID = "be" // + evidenceName: a statement of what was done to a point, which outlives it
	sumsPrefix      blob.ID = "bm" // + random: checksums of blobs that no point came with
	formatPrefix    blob.ID = "bf" // + hash: a copy of the format blobs, readable without any of them
)

// leaf is one blob of the catalogue.
type leaf struct {
	Version  int                `json:"version"`
	Time     time.Time          `json:"time"`
	Snapshot *snapshot.Manifest `json:"snapshot,omitempty"` // of the point, its labels among its tags
	Hold     *point.Hold        `json:"hold,omitempty"`
	Proof    *point.Proof       `json:"proof,omitempty"`
	Evidence []string           `json:"evidence,omitempty"` // statements: copies of those before it, and last the leaf's own
	Own      []metaCopy         `json:"own,omitempty"`      // of its record and of the directories above its parts
	Shared   []metaCopy         `json:"shared,omitempty"`   // of metadata that other points may have, too
	Sums     []sum              `json:"sums,omitempty"`     // of the blobs written since the leaf before
}

const leafVersion = 1

// maxLeaf bounds the bytes read of one catalogue blob: checksums of half a million blobs.
const maxLeaf = 256 << 20

// sealer returns the cipher of the catalogue. Its key hangs from the vault's master key and survives a change of password.
func (v *Vault) sealer() (cipher.AEAD, error) {
	key, err := v.rep.DeriveKey("backstay-catalogue", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the catalogue's key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive the catalogue's key: %w", err)
	}
	return cipher.NewGCM(block)
}

// putLeaf writes a blob of the catalogue, together with all checksums that are not recorded yet.
func (v *Vault) putLeaf(ctx context.Context, id blob.ID, l leaf) error {
	l.Sums = v.store.takeSums()
	err := v.writeLeaf(ctx, id, l)
	if err != nil {
		v.store.returnSums(l.Sums)
	}
	return err
}

// writeLeaf writes a blob of the catalogue.
func (v *Vault) writeLeaf(ctx context.Context, id blob.ID, l leaf) error {
	seal, err := v.sealer()
	if err != nil {
		return err
	}
	l.Version, l.Time = leafVersion, v.now().UTC()
	plain, err := encodeLeaf(&l)
	if err != nil {
		return fmt.Errorf("encode %s: %w", id, err)
	}
	nonce := make([]byte, seal.NonceSize())
	_, _ = rand.Read(nonce)                                      // never fails
	sealed := seal.Seal(nonce, nonce, plain, []byte(id))         // a leaf under another's name does not open
	err = v.store.PutBlob(ctx, id, &raw{sealed}, v.putOptions()) // under the same lock as kopia's blobs
	if err != nil {
		return storageFault("write catalogue", err)
	}
	return nil
}

// getLeaf reads a leaf. One that does not open is fault.ErrCorrupt.
func (v *Vault) getLeaf(ctx context.Context, id blob.ID) (*leaf, error) {
	plain, err := v.unseal(ctx, id)
	if err != nil {
		return nil, err
	}
	l, err := decodeLeaf(plain)
	return l, fault.Wrap("read catalogue "+string(id), fault.ErrCorrupt, err, hintRepair)
}

// unseal reads and opens a blob that is sealed under its own name.
func (v *Vault) unseal(ctx context.Context, id blob.ID) ([]byte, error) {
	seal, err := v.sealer()
	if err != nil {
		return nil, err
	}
	b, err := getBlob(ctx, v.store, id)
	if err != nil {
		return nil, storageFault("read catalogue", err)
	}
	if len(b) < seal.NonceSize() {
		return nil, fault.New("read catalogue", fault.ErrCorrupt, string(id)+" is cut short", hintRepair)
	}
	plain, err := seal.Open(nil, b[:seal.NonceSize()], b[seal.NonceSize():], []byte(id))
	if err != nil {
		return nil, fault.New("read catalogue", fault.ErrCorrupt, string(id)+" does not open", hintRepair)
	}
	return plain, nil
}

func encodeLeaf(l *leaf) ([]byte, error) {
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	if err := json.NewEncoder(zip).Encode(l); err != nil {
		return nil, err
	}
	err := zip.Close()
	return b.Bytes(), err
}

func decodeLeaf(b []byte) (*leaf, error) {
	unzip, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var l leaf
	if err := json.NewDecoder(io.LimitReader(unzip, maxLeaf)).Decode(&l); err != nil {
		return nil, err
	}
	return &l, nil
}

// flushChecksums records checksums that no point came with.
func (v *Vault) flushChecksums(ctx context.Context) error {
	if len(v.store.pending()) == 0 {
		return nil
	}
	return v.putLeaf(ctx, newSumsLeaf(), leaf{})
}

func newSumsLeaf() blob.ID { return sumsPrefix + blob.ID(randomID()) }

// putOptions puts our own blobs under the object lock that kopia's are under.
func (v *Vault) putOptions() blob.PutOptions {
	return blob.PutOptions{RetentionMode: v.lock.RetentionMode, RetentionPeriod: v.lock.RetentionPeriod}
}

// catalogue is the names in the catalogue.
type catalogue struct {
	points     map[string]bool // published and not expired
	tombstones map[string]bool
	holds      map[string][]blob.ID // by id of point
	proofs     map[string][]blob.ID // likewise
	attested   map[string]bool      // points that a statement says were made
	sums       []blob.ID
	formats    []blob.ID
}

// readCatalogue lists the catalogue. It opens no blob of it.
func (v *Vault) readCatalogue(ctx context.Context) (*catalogue, error) {
	c := &catalogue{points: map[string]bool{}, tombstones: map[string]bool{}, holds: map[string][]blob.ID{}, proofs: map[string][]blob.ID{}, attested: map[string]bool{}}
	err := v.store.ListBlobs(ctx, cataloguePrefix, func(m blob.Metadata) error {
		if len(m.BlobID) < 2 {
			return nil
		}
		name := string(m.BlobID[2:])
		switch m.BlobID[:2] {
		case pointPrefix:
			c.points[name] = true
		case tombstonePrefix:
			c.tombstones[name] = true
		case holdPrefix:
			if len(name) > idLength {
				c.holds[name[:idLength]] = append(c.holds[name[:idLength]], m.BlobID)
			}
		case proofPrefix:
			if len(name) > idLength {
				c.proofs[name[:idLength]] = append(c.proofs[name[:idLength]], m.BlobID)
			}
		case evidencePrefix:
			if n, ok := parseEvidenceName(m.BlobID); ok {
				c.attested[n.made] = true
			}
		case sumsPrefix:
			c.sums = append(c.sums, m.BlobID)
		case formatPrefix:
			c.formats = append(c.formats, m.BlobID)
		}
		return nil
	})
	if err != nil {
		return nil, storageFault("list catalogue", err)
	}
	for id := range c.tombstones {
		delete(c.points, id)
	}
	return c, nil
}

// idLength is how many hexadecimal digits the id of a point has.
const idLength = 32

// randomID returns the id of a new point.
func randomID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// getBlob reads a whole blob of limited size.
func getBlob(ctx context.Context, st blob.Reader, id blob.ID) ([]byte, error) {
	m, err := st.GetMetadata(ctx, id)
	if err != nil {
		return nil, err
	}
	if m.Length > maxLeaf {
		return nil, fault.New("read "+string(id), fault.ErrCorrupt, fmt.Sprintf("%d bytes are too many", m.Length), "")
	}
	var r raw
	if err := st.GetBlob(ctx, id, 0, -1, &r); err != nil {
		return nil, err
	}
	return r.b, nil
}

// validID reports whether id may be the id of a point.
func validID(id string) bool {
	return len(id) == idLength && strings.Trim(id, "0123456789abcdef") == ""
}
