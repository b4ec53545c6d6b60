package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/readonly"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/object"

	"github.com/backstay/backstay/internal/fault"
)

const hintRepair = "run `backstay location repair`; it brings back what can be brought back and says what cannot"

// storageFault gives what kopia or the location returned a class. Nil stays nil.
func storageFault(op string, err error) error {
	if err == nil {
		return nil
	}
	kind, hint := classify(err)
	return fault.Wrap(op, kind, err, hint)
}

// classify finds the class of an error of kopia's or of the location's. Nil: it has one already.
func classify(err error) (kind error, hint string) {
	switch {
	case fault.Of(err).Exit != 1:
		return nil, ""
	case errors.Is(err, readonly.ErrReadonly):
		return fault.ErrRefused, ""
	case errors.Is(err, blob.ErrBlobNotFound), errors.Is(err, content.ErrContentNotFound),
		errors.Is(err, object.ErrObjectNotFound), damaged(err):
		return fault.ErrCorrupt, hintRepair
	}
	if kind, hint = providerClass(err); kind != nil {
		return kind, hint
	}
	return fault.ErrUnavailable, ""
}

// damaged knows kopia's errors about bytes that do not check. kopia has no values for them, so their texts must do; a test flips
// bytes everywhere and fails when a new version of kopia words them otherwise.
func damaged(err error) bool {
	text := err.Error()
	for _, sign := range []string{
		"unable to decrypt", "invalid checksum", "decompress", "unexpected chunk length", "invalid length", "invalid indirect object",
		"unable to open index", "invalid blob offset or length", "unable to unpack manifest", "unable to parse manifest",
		"invalid format blob", "can't parse format blob", "corrupted", "ciphertext too short", "invalid repository blobcfg",
	} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}

// openFault explains why kopia would not open the vault in st.
func openFault(ctx context.Context, st blob.Reader, name string, password fault.Secret, err error) error {
	op := "open vault " + name
	copies, listErr := readFormatCopies(ctx, st)
	switch {
	case listErr != nil:
		return storageFault(op, errors.Join(err, listErr))
	case errors.Is(err, blob.ErrBlobNotFound) && len(copies) == 0:
		if lost, _ := anyBlob(ctx, st); lost {
			return fault.New(op, fault.ErrCorrupt, "a format blob is missing ("+listOf(formatBlobs)+") and there is no copy of it", "")
		}
		return fault.New(op, fault.ErrNotFound, "there is no vault", "make one with `backstay location create`")
	case errors.Is(err, blob.ErrBlobNotFound), errors.Is(err, format.ErrInvalidPassword), damaged(err):
		for _, c := range copies {
			bad, readErr := c.differing(ctx, st)
			if readErr != nil {
				return fault.Wrap(op, nil, readErr, "")
			}
			if len(bad) > 0 && c.opens(ctx, password) {
				return fault.New(op, fault.ErrCorrupt, fmt.Sprintf("damaged or missing: %s; there is a copy", listOf(bad)), hintRepair)
			}
		}
	}
	if errors.Is(err, repo.ErrInvalidPassword) {
		return fault.New(op, fault.ErrDenied, "wrong password", "")
	}
	return storageFault(op, err)
}

func listOf(ids []blob.ID) string {
	var names []string
	for _, id := range ids {
		names = append(names, string(id))
	}
	return strings.Join(names, ", ")
}

// anyBlob reports whether the location holds packs of a vault.
func anyBlob(ctx context.Context, st blob.Lister) (bool, error) {
	found := errors.New("found")
	for _, prefix := range content.PackBlobIDPrefixes {
		err := st.ListBlobs(ctx, prefix, func(blob.Metadata) error { return found })
		if errors.Is(err, found) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// writable refuses op on a vault that was opened for reading only.
func (v *Vault) writable(op string) error {
	if v.store.IsReadOnly() {
		return fault.New(op, fault.ErrRefused, "the vault was opened for reading only", "")
	}
	return nil
}
