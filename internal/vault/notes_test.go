package vault

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func TestNotesPassBetweenProcesses(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	one := newVault(t, dir, Options{})
	other := openVault(t, dir, Options{})
	for _, name := range []string{"run.0002.claim.b", "run.0001.claim.a", "else.plan"} {
		must(t, one.Post(ctx, name, []byte("the repository acme/secret-project")))
	}
	must(t, other.Post(ctx, "run.0001.claim.a", []byte("again")))
	names, err := other.Notes(ctx, "run.")
	if want := []string{"run.0001.claim.a", "run.0002.claim.b"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("notes %q, %v", names, err)
	}
	if text, err := one.Note(ctx, "run.0001.claim.a"); err != nil || string(text) != "again" {
		t.Errorf("note %q, %v", text, err)
	}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte("acme")) {
			t.Errorf("the store can read %s", path)
		}
		return err
	}))
	if r, err := one.Verify(ctx, true); err != nil || len(r.Faults) > 0 {
		t.Errorf("verify: %+v, %v", r, err)
	}
	must(t, other.Unpost(ctx, "run.0001.claim.a", "never.there"))
	_, err = one.Note(ctx, "run.0001.claim.a")
	wantFault(t, err, fault.ErrNotFound)

	late := openVault(t, dir, Options{Clock: func() time.Time { return time.Now().Add(notesKept + time.Hour) }})
	must(t, late.forgetNotes(ctx))
	if left := blobFiles(t, dir, "bw"); len(left) > 0 {
		t.Errorf("notes are left: %q", left)
	}
}
