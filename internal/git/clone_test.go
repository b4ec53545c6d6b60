package git

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func (b *bench) clone(id string) (string, error) {
	dir := filepath.Join(b.t.TempDir(), "clone")
	return dir, RestoreClone(b.t.Context(), b.part(id), dir, RestoreOptions{})
}

func TestRestoreClone(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a.txt", "hello")
	s.commit("refs/heads/topic", "b.txt", "world")
	b := newBench(t, s.dir)
	dir, err := b.clone(b.backup().Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	requireSame(t, s.dir, filepath.Join(dir, ".git"))
	if raw, err := os.ReadFile(filepath.Join(dir, "a.txt")); err != nil || string(raw) != "hello" {
		t.Errorf("a.txt is %q, %v", raw, err)
	}
	if status := stockGit(t, dir, "status", "--porcelain", "--branch"); status != "## main" {
		t.Errorf("git status says %q", status)
	}
	if remotes := stockGit(t, dir, "remote"); remotes != "" {
		t.Errorf("the clone has remotes: %s", remotes)
	}
}

func TestRestoreCloneOfNothing(t *testing.T) {
	s := newRepo(t)
	b := newBench(t, s.dir)
	dir, err := b.clone(b.backup().Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	if branch := stockGit(t, dir, "symbolic-ref", "HEAD"); branch != "refs/heads/main" {
		t.Errorf("HEAD names %s", branch)
	}
}

// A working tree is where a hostile repository could do harm. What git refuses to write stays unwritten, and nothing runs.
func TestRestoreCloneOfHostileTrees(t *testing.T) {
	cases := []struct {
		name string
		tree func(s *sourceRepo, blob string) string
	}{
		{"the parent directory", func(s *sourceRepo, blob string) string { return s.tree("40000 .. " + s.tree("100644 evil "+blob)) }},
		{"the git directory", func(s *sourceRepo, blob string) string { return s.tree("40000 .GiT " + s.tree("100644 config "+blob)) }},
		{"a file below a symbolic link", func(s *sourceRepo, blob string) string {
			link := s.gitIn("..", "hash-object", "-w", "--stdin")
			return s.tree("120000 a "+link, "40000 a "+s.tree("100644 evil "+blob))
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newRepo(t)
			blob := s.gitIn("evil", "hash-object", "-w", "--stdin")
			s.git("update-ref", "refs/heads/main", s.git("commit-tree", "-m", "x", c.tree(s, blob)))
			b := newBench(t, s.dir)
			dir, err := b.clone(b.backup().Point.ID)
			if err != nil && !errors.Is(err, fault.ErrRefused) {
				t.Errorf("error %v, want none or a refusal", err)
			}
			if err != nil && len(fault.Hints(err)) == 0 {
				t.Error("the refusal gives no hint")
			}
			left, _ := os.ReadDir(filepath.Dir(dir))
			for _, e := range left {
				if e.Name() != "clone" {
					t.Errorf("%s was written beside the clone", e.Name())
				}
			}
			if config, _ := os.ReadFile(filepath.Join(dir, ".git", "config")); strings.Contains(string(config), "evil") {
				t.Error("the configuration was overwritten")
			}
		})
	}
}

func TestRestoreCloneRunsNoFilters(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", ".gitattributes", "* filter=evil\n")
	s.commit("refs/heads/main", ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = ../../evil\n")
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	dir, err := b.clone(b.backup().Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	if config, err := os.ReadFile(filepath.Join(dir, ".git", "config")); err != nil || string(config) != configFile("sha1", false) {
		t.Errorf("the clone's configuration is %q, %v", config, err)
	}
}

func TestRestoreRefusesAnOccupiedPlace(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	part := b.part(b.backup().Point.ID)
	parent := t.TempDir()
	full, file, empty := filepath.Join(parent, "full"), filepath.Join(parent, "file"), filepath.Join(parent, "empty")
	for _, err := range []error{os.Mkdir(full, 0o755), os.WriteFile(filepath.Join(full, "mine"), nil, 0o600), os.WriteFile(file, nil, 0o600), os.Mkdir(empty, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{full, file} {
		for _, restore := range []func() error{
			func() error { return RestoreBare(t.Context(), part, dir, RestoreOptions{}) },
			func() error { return RestoreClone(t.Context(), part, dir, RestoreOptions{}) },
		} {
			if err := restore(); !errors.Is(err, fault.ErrRefused) {
				t.Errorf("%s: error %v, want a refusal", dir, err)
			}
		}
	}
	if err := RestoreBare(t.Context(), part, empty, RestoreOptions{}); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 3 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRestoreOfADamagedPartLeavesNothing(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	id := b.backup().Point.ID
	packs, err := b.part(id).List(t.Context(), packDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Corrupt(id, b.last.PartName()+"/"+packDir+"/"+packs[1].Name); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	if err := RestoreBare(t.Context(), b.part(id), filepath.Join(parent, "x"), RestoreOptions{}); !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("error %v, want one that says the point is corrupt", err)
	}
	if left, _ := os.ReadDir(parent); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRestoreOfChosenRefs(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	s.commit("refs/heads/topic/x", "b", "2")
	s.git("tag", "v1", "refs/heads/main")
	b := newBench(t, s.dir)
	part := b.part(b.backup().Point.ID)
	cases := []struct {
		refs []string
		want string
		head string
	}{
		{[]string{"refs/heads/topic/x"}, "refs/heads/topic/x", "refs/heads/topic/x"},
		{[]string{"refs/tags/*", "refs/heads/main"}, "refs/heads/main\nrefs/tags/v1", "refs/heads/main"},
	}
	for _, c := range cases {
		dir := filepath.Join(t.TempDir(), "x")
		if err := RestoreBare(t.Context(), part, dir, RestoreOptions{Refs: c.refs}); err != nil {
			t.Fatal(err)
		}
		if got := stockGit(t, dir, "--git-dir=.", "for-each-ref", "--format=%(refname)"); got != c.want {
			t.Errorf("%v: refs are %q", c.refs, got)
		}
		if got := stockGit(t, dir, "--git-dir=.", "symbolic-ref", "HEAD"); got != c.head {
			t.Errorf("%v: HEAD names %s", c.refs, got)
		}
	}
	if err := RestoreBare(t.Context(), part, filepath.Join(t.TempDir(), "x"), RestoreOptions{Refs: []string{"refs/heads/none"}}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("error %v for a ref that the point does not have", err)
	}
}
