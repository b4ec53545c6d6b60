package vault

import (
	"context"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// meddler is a storage that does something once, before a tombstone is put.
type meddler struct {
	blob.Storage
	do func()
}

// PutBlob puts.
func (m *meddler) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if do := m.do; do != nil && strings.HasPrefix(string(id), string(tombstonePrefix)) {
		m.do = nil
		do()
	}
	return m.Storage.PutBlob(ctx, id, data, o)
}

// TestHoldDuringExpiry puts a point on hold after its deletion began.
func TestHoldDuringExpiry(t *testing.T) {
	ctx := t.Context()
	dir, points := sample(t)
	other := openVault(t, dir, Options{})
	list, err := other.Points(ctx, point.Filter{})
	must(t, err)
	id := list[2].ID
	st := &meddler{Storage: directory(t, dir), do: func() { must(t, other.Hold(ctx, id, "why")) }}
	v, err := openIn(ctx, st, dir, testPassword, Options{})
	must(t, err)
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	wantFault(t, v.Delete(ctx, id), fault.ErrRefused)
	if left := blobFiles(t, dir, "bt"); len(left) > 0 {
		t.Errorf("tombstones are left: %q", left)
	}
	whole(t, dir, points)
}

// TestHoldEndsAnExpiryCutShort holds a point whose deletion stopped after the tombstone: its loss is noticed again.
func TestHoldEndsAnExpiryCutShort(t *testing.T) {
	ctx := t.Context()
	dir, points := sample(t)
	v := openVault(t, dir, Options{})
	for id := range points {
		must(t, v.putLeaf(ctx, tombstoneLeaf(id), leaf{}))
		must(t, v.Hold(ctx, id, "why"))
	}
	if left := blobFiles(t, dir, "bt"); len(left) > 0 {
		t.Errorf("tombstones are left: %q", left)
	}
	remove(t, dir, blobFiles(t, dir, "x", "n")...)
	_, err := openVault(t, dir, Options{}).Points(ctx, point.Filter{})
	wantFault(t, err, fault.ErrCorrupt)
	if err == nil || !strings.Contains(err.Error(), "3 of 3 points are lost") {
		t.Errorf("got %v", err)
	}
}
