package git

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func TestHistory(t *testing.T) {
	repo := newRepo(t)
	first := repo.commit("refs/heads/main", "shop/app.yaml", "one")
	repo.commit("refs/heads/main", "shop/job.yaml", "migrate")
	third := repo.commit("refs/heads/main", "other/app.yaml", "other")
	h, err := FetchHistory(t.Context(), repo.dir, Options{}, t.TempDir(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	files, err := h.Files(t.Context(), third, "shop")
	if err != nil || !slices.Equal(slices.Sorted(maps.Keys(files)), []string{"shop/app.yaml", "shop/job.yaml"}) {
		t.Errorf("%v, %v", files, err)
	}
	if files, err := h.Files(t.Context(), first, "none"); len(files) > 0 || err != nil {
		t.Errorf("of a directory that is not there: %v, %v", files, err)
	}
	if _, err := h.Files(t.Context(), "0123456789012345678901234567890123456789", "."); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("of a commit that is not there: %v", err)
	}
	commit, err := h.Revert(t.Context(), third, first, "./shop/", "revert")
	if err != nil {
		t.Fatal(err)
	}
	if files, err = h.Files(t.Context(), commit, ""); err != nil || !slices.Equal(slices.Sorted(maps.Keys(files)), []string{"other/app.yaml", "shop/app.yaml"}) {
		t.Errorf("reverted: %v, %v", files, err)
	}
	if err := h.Push(t.Context(), repo.dir, "backstay/revert-1", commit, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := repo.git("rev-parse", "refs/heads/backstay/revert-1"); got != commit {
		t.Errorf("pushed %s, want %s", got, commit)
	}
	if got := repo.git("rev-parse", "refs/heads/backstay/revert-1^"); got != third {
		t.Errorf("the commit is upon %s, want %s", got, third)
	}
	if again, err := h.Revert(t.Context(), commit, first, "shop", "revert"); again != commit || err != nil {
		t.Errorf("reverted twice: %s, %v", again, err)
	}
}
