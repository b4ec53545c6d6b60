package vault

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/point"
)

// counted counts what is read of a storage.
type counted struct {
	blob.Storage
	gets atomic.Int64
}

func (c *counted) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	c.gets.Add(1)
	return c.Storage.GetBlob(ctx, id, offset, length, out)
}

// TestManifestsAreReadOnce lists points again and again, as a run of many applications does: only what is new is read.
func TestManifestsAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	writer := newVault(t, dir, Options{})
	st := &counted{Storage: directory(t, dir)}
	v, err := openIn(t.Context(), st, dir, testPassword, Options{ReadOnly: true})
	must(t, err)
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	for n := range byte(10) {
		backUp(t, writer, repoA, n+1, 1000)
		before := st.gets.Load()
		list, err := v.Points(t.Context(), point.Filter{})
		must(t, err)
		if len(list) != int(n)+1 {
			t.Fatalf("%d points are listed, want %d", len(list), n+1)
		}
		if read := st.gets.Load() - before; n > 0 && read > 2 { // an index, and a content of manifests
			t.Errorf("listing %d points, one of them new, read %d blobs", n+1, read)
		}
	}
}
