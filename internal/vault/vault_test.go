package vault

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

const testPassword fault.Secret = "correct horse battery staple"

var repoA = point.Subject{Kind: point.SubjectRepository, Name: "example.com/acme/api"}

// directory returns a storage in a directory.
func directory(t testing.TB, dir string) blob.Storage {
	t.Helper()
	st, err := filesystem.New(t.Context(), &filesystem.Options{Path: dir}, true)
	must(t, err)
	return st
}

// newVault makes and opens a vault in a directory.
func newVault(t testing.TB, dir string, o Options) *Vault {
	t.Helper()
	must(t, createIn(t.Context(), directory(t, dir), dir, testPassword, o))
	return openVault(t, dir, o)
}

func openVault(t testing.TB, dir string, o Options) *Vault {
	t.Helper()
	v, err := openIn(t.Context(), directory(t, dir), dir, testPassword, o)
	must(t, err)
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	return v
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnchangedCostsLittle makes a point in which nothing changed: its cost is bounded, in bytes and in blobs.
func TestUnchangedCostsLittle(t *testing.T) {
	dir := t.TempDir()
	v := newVault(t, dir, Options{Tool: "backstay test"})
	backUp(t, v, repoA, 1, 1<<20)
	keepAll := func() *point.Receipt {
		d, err := v.Begin(t.Context(), repoA, "daily")
		must(t, err)
		w, err := d.Part(t.Context(), gitPart, point.KindGit)
		must(t, err)
		must(t, w.Keep(t.Context(), "."))
		must(t, w.Store(t.Context(), point.Part{Revision: fmt.Sprintf("%040d", 1)}))
		receipt, err := d.Commit(t.Context())
		must(t, err)
		return receipt
	}
	blobs, bytes := len(blobFiles(t, dir, "")), locationSize(t, dir)
	receipt := keepAll()
	more, grown := len(blobFiles(t, dir, ""))-blobs, locationSize(t, dir)-bytes
	t.Logf("%d bytes written, %d of them there afterwards, in %d blobs", receipt.StoredBytes, grown, more)
	if receipt.StoredBytes >= 10_000 || more > 4 || grown > receipt.StoredBytes {
		t.Error("that is too much")
	}
	// Nothing piles up: a hundred points are listed from few contents.
	for range 100 {
		keepAll()
	}
	l, err := v.manifests(t.Context())
	must(t, err)
	if len(l.points) != 102 || l.contents > 80 {
		t.Errorf("%d points in %d contents of manifests", len(l.points), l.contents)
	}
	must(t, v.Close(t.Context()))
}

func locationSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	for _, f := range blobFiles(t, dir, "") {
		size += int64(len(readFile(t, dir, f)))
	}
	return size
}

// TestClockGoesBack deletes and lifts by a clock that is behind the one that wrote.
func TestClockGoesBack(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	ahead := func() time.Time { return time.Now().Add(time.Hour) }
	v := newVault(t, dir, Options{Clock: ahead})
	id := backUp(t, v, repoA, 1, 1000).Point.ID
	must(t, v.Hold(ctx, id, "why"))
	must(t, v.Close(ctx))
	v = openVault(t, dir, Options{})
	must(t, v.Hold(ctx, id, ""))
	must(t, v.Delete(ctx, id))
	list, err := v.Points(ctx, point.Filter{})
	must(t, err)
	if len(list) != 0 {
		t.Errorf("%d points are listed after the deletion", len(list))
	}
}

// TestCreatedByOneOnly has several processes make a vault at one place: one does, and what it made opens.
func TestCreatedByOneOnly(t *testing.T) {
	dir := t.TempDir()
	results := make(chan error)
	const makers = 4
	for i := range makers {
		go func() {
			results <- createIn(t.Context(), directory(t, dir), dir, fault.Secret(fmt.Sprintf("%s %d", testPassword, i)), Options{})
		}()
	}
	made := 0
	for range makers {
		switch err := <-results; {
		case err == nil:
			made++
		case !errors.Is(err, fault.ErrBusy) && !errors.Is(err, fault.ErrExists):
			t.Error(err)
		}
	}
	opened := 0
	for i := range makers {
		v, err := openIn(t.Context(), directory(t, dir), dir, fault.Secret(fmt.Sprintf("%s %d", testPassword, i)), Options{})
		if err == nil {
			opened++
			must(t, v.Close(t.Context()))
		}
	}
	if made != 1 || opened != 1 {
		t.Errorf("%d made a vault, %d open it; want one", made, opened)
	}
}
