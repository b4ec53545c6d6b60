package vault

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/backstay/backstay/internal/fault"
)

// maxCopies bounds the bytes of metadata copied into one leaf. Beyond it, what a point needs to be read again hangs on its packs.
const maxCopies = 8 << 20

// metaCopy is a copy of an object that holds metadata: a directory, a record, or the list of a large file's chunks. kopia puts these
// into few small packs, the loss of any of which would make whole points unreadable. The id follows from the bytes.
type metaCopy struct {
	ID   object.ID `json:"id"`
	Data []byte    `json:"data"`
}

// metaOptions is how kopia is to write an object of metadata: always in the same way, so that the same bytes get the same id.
func metaOptions(prefix content.IDPrefix) object.WriterOptions {
	return object.WriterOptions{Prefix: prefix, Compressor: compressor, MetadataCompressor: compressor}
}

// writeMeta writes an object of metadata.
func writeMeta(ctx context.Context, w repo.RepositoryWriter, prefix content.IDPrefix, b []byte) (object.ID, error) {
	o := w.NewObjectWriter(ctx, metaOptions(prefix))
	defer o.Close()
	if _, err := o.Write(b); err != nil {
		return noObject, err
	}
	return o.Result()
}

// copyMeta reads objects of metadata, as many as fit.
func copyMeta(ctx context.Context, rep repo.Repository, ids []object.ID) ([]metaCopy, error) {
	var copies []metaCopy
	total := 0
	seen := map[object.ID]bool{}
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		o, err := rep.OpenObject(ctx, id)
		if err != nil {
			return nil, storageFault("copy metadata", err)
		}
		if total += int(o.Length()); total > maxCopies {
			return copies, o.Close()
		}
		b, err := io.ReadAll(o)
		if err = errors.Join(err, o.Close()); err != nil {
			return nil, storageFault("copy metadata", err)
		}
		copies = append(copies, metaCopy{id, b})
	}
	return copies, nil
}

// restoreMeta writes a copy back if its object cannot be read, and says whether it did.
func restoreMeta(ctx context.Context, w repo.DirectRepositoryWriter, c metaCopy) (bool, error) {
	id, _, ok := c.ID.ContentID()
	if !ok {
		return false, nil // a directory of megabytes, in several contents: its packs must do
	}
	_, err := w.ContentReader().GetContent(ctx, id)
	if err == nil {
		return false, nil
	}
	if kind, _ := classify(err); !errors.Is(kind, fault.ErrCorrupt) {
		return false, storageFault("read metadata", err)
	}
	// kopia does not write what its index says is there.
	if err := w.ContentManager().DeleteContent(ctx, id); err != nil && !errors.Is(err, content.ErrContentNotFound) {
		return false, storageFault("forget lost metadata", err)
	}
	again, err := writeMeta(ctx, w, id.Prefix(), c.Data)
	if err != nil {
		return false, storageFault("write metadata", err)
	}
	if again != c.ID {
		return false, fmt.Errorf("copy of metadata %s has become %s", c.ID, again)
	}
	return true, nil
}
