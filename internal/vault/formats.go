package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/backstay/backstay/internal/fault"
)

// formatBlobs are the two blobs without which nothing in the vault opens, in the order in which kopia writes them.
var formatBlobs = []blob.ID{format.KopiaBlobCfgBlobID, format.KopiaRepositoryBlobID}

// formatCopy is a copy of the format blobs. It is in clear, as they are: their secrets are encrypted under the password.
type formatCopy struct {
	id     blob.ID
	sha256 string             // of the copy, hexadecimal
	Time   time.Time          `json:"time"`
	Blobs  map[blob.ID][]byte `json:"blobs"`
}

// copyFormat writes a copy of the format blobs as they are now, and removes the copies of before.
func (v *Vault) copyFormat(ctx context.Context) error {
	now := map[blob.ID][]byte{}
	for _, id := range formatBlobs {
		b, err := getBlob(ctx, v.store, id)
		if err != nil {
			return storageFault("copy format blobs", err)
		}
		now[id] = b
	}
	return v.keepFormat(ctx, now, nil)
}

// keepFormat writes a copy of blobs, calls then, and removes every other copy.
func (v *Vault) keepFormat(ctx context.Context, blobs map[blob.ID][]byte, then func() error) error {
	old, err := blob.ListAllBlobs(ctx, v.store, formatPrefix) // damaged ones, too
	if err != nil {
		return storageFault("list copies of format blobs", err)
	}
	b, err := json.Marshal(formatCopy{Time: v.now().UTC(), Blobs: blobs})
	if err != nil {
		return fmt.Errorf("encode copy of format blobs: %w", err)
	}
	id := formatName(b)
	if err := v.store.PutBlob(ctx, id, &raw{b}, v.putOptions()); err != nil {
		return storageFault("copy format blobs", err)
	}
	if then != nil {
		if err := then(); err != nil {
			return err
		}
	}
	for _, c := range old {
		if c.BlobID == id {
			continue
		}
		if err := v.store.DeleteBlob(ctx, c.BlobID); err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
			return storageFault("remove old copy of format blobs", err)
		}
	}
	return nil
}

// formatName names a copy by its bytes, so that a damaged one is known without a key.
func formatName(b []byte) blob.ID {
	h := sha256.Sum256(b)
	return formatPrefix + blob.ID(hex.EncodeToString(h[:16]))
}

// readFormatCopies reads the undamaged copies of the format blobs, newest first.
func readFormatCopies(ctx context.Context, st blob.Reader) ([]formatCopy, error) {
	names, err := blob.ListAllBlobs(ctx, st, formatPrefix)
	if err != nil {
		return nil, storageFault("list copies of format blobs", err)
	}
	var copies []formatCopy
	for _, m := range names {
		b, err := getBlob(ctx, st, m.BlobID)
		if err != nil {
			return nil, storageFault("read copy of format blobs", err)
		}
		h := sha256.Sum256(b)
		c := formatCopy{id: m.BlobID, sha256: hex.EncodeToString(h[:])}
		if formatName(b) != m.BlobID || json.Unmarshal(b, &c) != nil {
			continue // Verify names it; another copy may be whole
		}
		copies = append(copies, c)
	}
	sort.Slice(copies, func(i, j int) bool { return copies[i].Time.After(copies[j].Time) })
	return copies, nil
}

// differing returns those of the location's format blobs that are missing or not as in the copy.
func (c formatCopy) differing(ctx context.Context, st blob.Reader) ([]blob.ID, error) {
	var ids []blob.ID
	for _, id := range formatBlobs {
		b, err := getBlob(ctx, st, id)
		if err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
			return nil, storageFault("read format blobs", err)
		}
		if err != nil || !bytes.Equal(b, c.Blobs[id]) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// same reports whether the format blobs of the location are as in the copy.
func (c formatCopy) same(ctx context.Context, st blob.Reader) (bool, error) {
	ids, err := c.differing(ctx, st)
	return err == nil && len(ids) == 0, err
}

// opens reports whether password opens the copy.
func (c formatCopy) opens(ctx context.Context, password fault.Secret) bool {
	st := memoryStorage{blobs: c.Blobs}
	noTime := func() time.Time { return time.Time{} } // it decides only how long an answer may be cached
	_, err := format.NewManagerWithCache(ctx, st, 0, password.Reveal(), noTime, format.NewMemoryBlobCache(noTime))
	return err == nil
}

// memoryStorage serves the blobs of a copy, to try a password on it.
type memoryStorage struct {
	blob.Storage // nil: nothing but GetBlob is used
	blobs        map[blob.ID][]byte
}

// GetBlob gives a whole blob.
func (s memoryStorage) GetBlob(_ context.Context, id blob.ID, _, _ int64, output blob.OutputBuffer) error {
	b, ok := s.blobs[id]
	if !ok {
		return blob.ErrBlobNotFound
	}
	output.Reset()
	_, err := output.Write(b)
	return err
}
