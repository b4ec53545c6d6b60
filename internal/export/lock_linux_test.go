package export_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/protect"
)

// TestRunsBesideEachOther: processes and policies that write the same copy take turns.
func TestRunsBesideEachOther(t *testing.T) {
	t.Parallel()
	for _, layout := range []export.Layout{{}, {Form: export.Worktree}, {Zip: true}, {Keep: 3}} {
		t.Run(fmt.Sprintf("%+v", layout), func(t *testing.T) {
			t.Parallel()
			place, dir := local(t)
			u := newUpstream(t, "example.com/acme/api")
			for range 2 {
				u.commit(t)
				errs := make(chan error)
				for range 3 {
					e := exporter(t, export.Options{Place: place, Layout: layout, UpdateWorkTree: git.UpdateWorkTree, Lost: git.Lost})
					source := u.source(t)
					go func() {
						_, err := protect.Backup(t.Context(), e, source, "")
						errs <- err
					}()
				}
				for range 3 {
					must(t, <-errs)
				}
			}
			if layout.Form == export.Worktree {
				same(t, u, filepath.Join(dir, "api"))
				if changed := run(t, filepath.Join(dir, "api"), "status", "--short"); changed != "" {
					t.Errorf("files differ: %s", changed)
				}
			}
			if made := names(t, dir); len(made) != 1 {
				t.Errorf("%q", made)
			}
		})
	}
	place, _ := local(t)
	unlock, err := place.Lock(t.Context(), "api.git")
	must(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := protect.Backup(ctx, exporter(t, export.Options{Place: place}), newUpstream(t, "example.com/acme/api").source(t), ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
