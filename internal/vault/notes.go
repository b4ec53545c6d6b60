package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
)

// notePrefix begins the names of notes, by which processes that share a run tell each other who does what. They are sealed as leaves are,
// but neither locked nor part of the catalogue: without them, work is done twice and nothing is lost.
const notePrefix blob.ID = "bw"

// isPassing reports whether a blob is of work under way, a lease or a note, and not of what is kept.
func isPassing(id blob.ID) bool {
	return strings.HasPrefix(string(id), string(leasePrefix)) || strings.HasPrefix(string(id), string(notePrefix))
}

// notesKept is how long notes stay that a run has left: how it came out, or what a run that nobody ended was about.
const notesKept = 30 * 24 * time.Hour

// Post leaves a note, in the place of one that is there.
func (v *Vault) Post(ctx context.Context, name string, text []byte) error {
	op := "post note " + name
	if err := v.writable(op); err != nil {
		return err
	}
	seal, err := v.sealer()
	if err != nil {
		return err
	}
	id := notePrefix + blob.ID(name)
	nonce := make([]byte, seal.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return storageFault(op, v.store.PutBlob(ctx, id, &raw{seal.Seal(nonce, nonce, text, []byte(id))}, blob.PutOptions{}))
}

// Note reads a note.
func (v *Vault) Note(ctx context.Context, name string) ([]byte, error) {
	text, err := v.unseal(ctx, notePrefix+blob.ID(name))
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil, fault.New("read note "+name, fault.ErrNotFound, "", "")
	}
	return text, err
}

// Notes lists the names of notes that begin so, sorted.
func (v *Vault) Notes(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := v.store.ListBlobs(ctx, notePrefix+blob.ID(prefix), func(m blob.Metadata) error {
		names = append(names, string(m.BlobID[len(notePrefix):]))
		return nil
	})
	slices.Sort(names)
	return names, storageFault("list notes", err)
}

// Unpost takes notes away.
func (v *Vault) Unpost(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := v.store.DeleteBlob(ctx, notePrefix+blob.ID(name)); err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
			return storageFault("remove note "+name, err)
		}
	}
	return nil
}

// forgetNotes takes away what runs left long ago.
func (v *Vault) forgetNotes(ctx context.Context) error {
	var old []string
	err := v.store.ListBlobs(ctx, notePrefix, func(m blob.Metadata) error {
		if v.now().Sub(m.Timestamp) > notesKept {
			old = append(old, string(m.BlobID[len(notePrefix):]))
		}
		return nil
	})
	if err != nil {
		return storageFault("list notes", err)
	}
	return v.Unpost(ctx, old...)
}
