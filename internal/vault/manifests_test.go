package vault

import (
	"context"
	"strings"
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

// TestObjectsAreCommittedAtOnce makes a point of an application without volumes: its parts wait for each other, and make one index.
func TestObjectsAreCommittedAtOnce(t *testing.T) {
	dir := t.TempDir()
	v := newVault(t, dir, Options{})
	before := len(blobFiles(t, dir, ""))
	d, err := v.Begin(t.Context(), repoA, "daily")
	must(t, err)
	for _, name := range []string{"kubernetes/shop", "kubernetes/_cluster"} {
		w, err := d.Part(t.Context(), name, point.KindObjects)
		must(t, err)
		_, err = w.Put(t.Context(), point.Entry{Name: "configmaps/settings.yaml"}, strings.NewReader("of: "+name), point.Text)
		must(t, err)
		must(t, w.Store(t.Context(), point.Part{}))
	}
	_, err = d.Commit(t.Context())
	must(t, err)
	if made := len(blobFiles(t, dir, "")) - before; made > 5 {
		t.Errorf("%d blobs were made, want packs of data and of metadata, an index, a leaf of the catalogue, and a statement", made)
	}
}
