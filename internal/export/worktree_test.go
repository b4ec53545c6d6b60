package export_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/protect"
)

// TestClonesWithFiles makes them in every layout, from a repository that has links out of itself.
func TestClonesWithFiles(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(outside, []byte("of the host"), 0o600))
	for _, layout := range []export.Layout{{}, {Zip: true}, {Keep: 2}, {Dated: true}, {Dated: true, Zip: true}} {
		t.Run(fmt.Sprintf("%+v", layout), func(t *testing.T) {
			t.Parallel()
			place, dir := local(t)
			layout.Form = export.Worktree
			now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
			e := exporter(t, export.Options{
				Place: place, Layout: layout, UpdateWorkTree: git.UpdateWorkTree, Lost: git.Lost, Clock: func() time.Time { return now },
			})
			a := newAccount(t)
			must(t, os.Symlink(outside, filepath.Join(a.repository.dir, "link")))
			must(t, os.Symlink("/", filepath.Join(a.repository.dir, "root")))
			for round := range 3 {
				now = now.AddDate(0, 0, 1)
				if round != 1 { // in one round only an issue changes
					a.repository.commit(t)
				}
				a.issues["1.json"] = fmt.Sprintf(`{"round":%d}`, round)
				_, err := protect.Backup(t.Context(), e, a.source(t), "")
				must(t, err)
				at := newestClone(t, dir)
				same(t, a.repository, at)
				if out := run(t, at, "status", "--porcelain"); out != "" {
					t.Errorf("round %d: status:\n%s", round, out)
				}
				target, err := os.Readlink(filepath.Join(at, "link"))
				must(t, err)
				if target != outside {
					t.Errorf("the link points to %s", target)
				}
			}
		})
	}
}

// newestClone finds the newest clone of the repository "api" in any layout; a zip file is unpacked.
func newestClone(t *testing.T, dir string) string {
	t.Helper()
	for _, pattern := range []string{"2*/api.zip", "2*/api", "api.zip", "api/1*[0-9]", "api"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		if len(found) == 0 {
			continue
		}
		last := found[len(found)-1]
		if filepath.Ext(last) != ".zip" {
			return last
		}
		to := t.TempDir()
		unzip(t, last, to)
		return filepath.Join(to, "api")
	}
	t.Fatalf("no clone in %s", dir)
	return ""
}

func TestFilesThatCannotBeUpdatedAreTriedAgain(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	u := newUpstream(t, "example.com/acme/api")
	fails := true
	e := exporter(t, export.Options{Place: place, Layout: export.Layout{Form: export.Worktree}, UpdateWorkTree: func(ctx context.Context, at string) error {
		if fails {
			return errFull
		}
		return git.UpdateWorkTree(ctx, at)
	}})
	if _, err := protect.Backup(t.Context(), e, u.source(t), ""); err == nil {
		t.Fatal("it was not told")
	}
	fails = false
	backUp(t, e, u)
	same(t, u, filepath.Join(dir, "api"))
	if out := run(t, filepath.Join(dir, "api"), "status", "--porcelain"); out != "" {
		t.Errorf("status:\n%s", out)
	}
}
