package git

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestABundleHasAllRefs(t *testing.T) {
	s := newRepo(t)
	main := s.commit("refs/heads/main", "a", "1")
	pull := s.commit("refs/pull/7/head", "b", "2")
	s.git("update-ref", "refs/tags/v1", main)
	file := filepath.Join(t.TempDir(), "project.bundle")
	if err := WriteBundle(t.Context(), s.dir, file, RefMove{"refs/pull/", "refs/merge-requests/"}); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back.git")
	if _, err := runGit(t.Context(), back, "", "clone", "-q", "--mirror", file, back); err != nil {
		t.Fatal(err)
	}
	got, err := runGit(t.Context(), back, "", "for-each-ref", "--format=%(objectname) %(refname)")
	want := main + " refs/heads/main\n" + pull + " refs/merge-requests/7/head\n" + main + " refs/tags/v1"
	if err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if head, err := runGit(t.Context(), back, "", "symbolic-ref", "HEAD"); err != nil || head != "refs/heads/main" {
		t.Errorf("HEAD is %q, %v", head, err)
	}
}

func TestAnEmptyRepositoryHasNoBundle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "project.bundle")
	if err := WriteBundle(t.Context(), newRepo(t).dir, file); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a file: %v", err)
	}
}
