package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"testing"

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

func TestThinPath(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	v := newVault(t, dir, Options{})
	d, err := v.Begin(ctx, repoA, "daily")
	must(t, err)
	w, err := d.Part(ctx, "git/a.git", point.KindGit)
	must(t, err)
	big := make([]byte, 9<<20)
	_, _ = rand.Read(big)
	_, err = w.Put(ctx, point.Entry{Name: "objects/pack/p.pack"}, bytes.NewReader(big), point.Packed)
	must(t, err)
	_, err = w.Put(ctx, point.Entry{Name: "HEAD"}, bytes.NewReader([]byte("ref: refs/heads/main\n")), point.Text)
	must(t, err)
	must(t, w.Store(ctx, point.Part{Revision: "abc"}))
	receipt, err := d.Commit(ctx)
	must(t, err)
	t.Logf("stored %d", receipt.StoredBytes)

	d, err = v.Begin(ctx, repoA, "daily")
	must(t, err)
	w, err = d.Part(ctx, "git/a.git", point.KindGit)
	must(t, err)
	must(t, w.Keep(ctx, "."))
	must(t, w.Store(ctx, point.Part{Revision: "abc"}))
	receipt, err = d.Commit(ctx)
	must(t, err)
	t.Logf("stored %d", receipt.StoredBytes)
	points, err := v.Points(ctx, point.Filter{})
	must(t, err)
	if len(points) != 2 {
		t.Fatalf("%d points", len(points))
	}
	record, r, err := v.Open(ctx, points[0].ID)
	must(t, err)
	t.Logf("%+v", record)
	dest := filepath.Join(t.TempDir(), "out")
	must(t, r.Extract(ctx, ".", dest))
	got, err := os.ReadFile(filepath.Join(dest, "git/a.git/objects/pack/p.pack"))
	must(t, err)
	if !bytes.Equal(got, big) {
		t.Fatal("differ")
	}
	f, err := r.Open(ctx, "git/a.git/HEAD")
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, err)
	t.Logf("%q", b)
	must(t, f.Close())
	must(t, v.Close(ctx))
	_ = filepath.Walk(dir, func(p string, i os.FileInfo, err error) error {
		if !i.IsDir() {
			t.Logf("%8d %s", i.Size(), p[len(dir):])
		}
		return nil
	})
}
