package git

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// What is there already is filled, not replaced: the user may stand in it, it may be a mount point, or named by a link.
func TestRestoreIntoWhatIsThere(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	part := b.part(b.backup().Point.ID)

	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(dir, point.UnfinishedPrefix+"1") // what a process leaves that is killed
	if err := os.Mkdir(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed, "in-use"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := RestoreBare(t.Context(), part, link, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	requireSame(t, s.dir, dir)
	after, err := os.Stat(dir)
	if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("the directory is another one, or has another mode: %v, %v", after, err)
	}
	if to, err := os.Readlink(link); err != nil || to != dir {
		t.Errorf("the link names %q, %v", to, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
		t.Errorf("left behind: %v, %v", entries, err)
	}

	nowhere := filepath.Join(t.TempDir(), "dangling")
	if err := os.Symlink(filepath.Join(nowhere, "gone"), nowhere); err != nil {
		t.Fatal(err)
	}
	if err := RestoreBare(t.Context(), part, nowhere, RestoreOptions{}); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("a link to nowhere: %v", err)
	}
}

func TestRestoreOfSomeRefs(t *testing.T) {
	s := newRepo(t)
	main := s.commit("refs/heads/main", "a", "1")
	s.commit("refs/heads/side", "b", "2")
	s.git("update-ref", "refs/tags/v1", main)
	s.git("symbolic-ref", "refs/heads/alias", "refs/heads/again")
	s.git("symbolic-ref", "refs/heads/again", "refs/heads/main")
	b := newBench(t, s.dir)
	part := b.part(b.backup().Point.ID)

	dir := filepath.Join(t.TempDir(), "bare")
	if err := RestoreBare(t.Context(), part, dir, RestoreOptions{Refs: []string{"refs/heads/alias"}}); err != nil {
		t.Fatal(err)
	}
	refs := stockGit(t, dir, "for-each-ref", "--format=%(refname) %(symref)")
	if !strings.Contains(refs, "refs/heads/main") || strings.Contains(refs, "side") || strings.Contains(refs, "v1") {
		t.Errorf("refs are %s", refs)
	}
	if oid := stockGit(t, dir, "rev-parse", "refs/heads/alias"); oid != main {
		t.Errorf("the symbolic ref comes down to %s", oid)
	}

	err := RestoreClone(t.Context(), part, filepath.Join(t.TempDir(), "clone"), RestoreOptions{Refs: []string{"refs/tags/v1"}})
	if !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("a working tree of no branch: %v", err)
	}
}

// A commit that only a detached HEAD holds does not reach a server. That is said.
func TestPushOfADetachedHead(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	loose := s.commitOn("", "b", "2")
	s.git("update-ref", "--no-deref", "HEAD", loose)
	b := newBench(t, s.dir)
	target := newRepo(t)
	report, err := Push(t.Context(), b.part(b.backup().Point.ID), target.dir, PushOptions{Options: testOptions()})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(report.Skipped, func(said string) bool { return strings.Contains(said, loose) }) {
		t.Errorf("nothing is said of %s: %q", loose, report.Skipped)
	}
}

// A ref whose object the source has lost: the error says where to look.
func TestRefOfALostObject(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	path := filepath.Join(s.dir, "refs", "heads", "broken")
	if err := os.WriteFile(path, []byte(strings.Repeat("1", 40)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newBench(t, s.dir).try(); !errors.Is(err, fault.ErrUnavailable) || !strings.Contains(err.Error(), "advertises what it does not have") {
		t.Errorf("the error is %v", err)
	}
}
