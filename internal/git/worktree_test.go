package git

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

// exported is a clone whose git directory is brought up to date as exports do it: packs and refs, and no files.
type exported struct {
	*sourceRepo
	dir string
}

func newExported(t *testing.T, s *sourceRepo) *exported {
	e := &exported{s, filepath.Join(t.TempDir(), "clone")}
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	runIn(t, "git", "init", "-q", "-b", "main", e.dir)
	return e
}

func runIn(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := command(t.Context(), name, args...)
	cmd.Env = append(cleanEnviron(os.Environ()), "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// bring moves refs and objects of the source into the clone, by force, and leaves its files alone.
func (e *exported) bring() {
	e.t.Helper()
	runIn(e.t, "git", "-C", e.dir, "-c", "protocol.file.allow=always", "fetch", "-q", "--update-head-ok", e.sourceRepo.dir, "+refs/*:refs/*")
}

func (e *exported) update() error { return UpdateWorkTree(context.Background(), e.dir) }

func (e *exported) write(name, text string) {
	e.t.Helper()
	if err := os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o644); err != nil {
		e.t.Fatal(err)
	}
}

// want compares files; "" stands for one that is not there.
func (e *exported) want(files map[string]string) {
	e.t.Helper()
	for name, want := range files {
		raw, err := os.ReadFile(filepath.Join(e.dir, name))
		if string(raw) != want || (err != nil) != (want == "") {
			e.t.Errorf("%s is %q, %v; want %q", name, raw, err, want)
		}
	}
}

func (e *exported) status() string {
	return runIn(e.t, "git", "-C", e.dir, "-c", "advice.graftFileDeprecated=false", "status", "--porcelain")
}

func (e *exported) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func TestUpdateWorkTree(t *testing.T) {
	e := newExported(t, newRepo(t))
	e.must(e.update()) // an unborn branch has no files
	e.commit("refs/heads/main", "a", "1")
	e.commit("refs/heads/main", "dir/b", "1")
	for range 2 {
		e.bring()
		e.must(e.update())
		e.want(map[string]string{"a": "1", "dir/b": "1"})
	}
	e.commit("refs/heads/main", "a", "2")
	e.write("mine", "untracked")
	e.bring()
	e.must(e.update())
	e.want(map[string]string{"a": "2", "dir/b": "1", "mine": "untracked"})
	if got := e.status(); got != "?? mine\n" {
		t.Errorf("status:\n%s", got)
	}

	e.sourceRepo.git("update-ref", "refs/heads/main", e.commitOn("", "c", "rewritten"))
	e.bring()
	e.must(e.update())
	e.want(map[string]string{"a": "", "dir/b": "", "c": "rewritten", "mine": "untracked"})
}

func TestUpdateWorkTreeLosesNothing(t *testing.T) {
	e := newExported(t, newRepo(t))
	e.commit("refs/heads/main", "a", "1")
	e.commit("refs/heads/main", "b", "1")
	e.bring()
	e.must(e.update())

	for _, test := range []struct{ name, text, undo string }{
		{"a", "changed here", "1"}, // tracked
		{"new", "made here", ""},   // not tracked, and the source gets one of that name
	} {
		e.write(test.name, test.text)
		e.commit("refs/heads/main", "b", "next to "+test.name)
		e.commit("refs/heads/main", test.name, "of the source")
		before, err := os.ReadFile(filepath.Join(e.dir, "b"))
		e.must(err)
		for range 2 {
			e.bring()
			if err := e.update(); !errors.Is(err, fault.ErrRefused) || !strings.Contains(err.Error(), test.name) {
				t.Errorf("%s is in the way: %v", test.name, err)
			}
			e.want(map[string]string{test.name: test.text, "b": string(before)})
		}
		if test.undo == "" {
			e.must(os.Remove(filepath.Join(e.dir, test.name)))
		} else {
			e.write(test.name, test.undo)
		}
		e.must(e.update())
		e.want(map[string]string{test.name: "of the source", "b": "next to " + test.name})
	}

	e.write("b", "changed here") // and nothing in its way
	e.write("staged", "made here")
	runIn(t, "git", "-C", e.dir, "add", "staged")
	e.commit("refs/heads/main", "a", "last")
	e.bring()
	e.must(e.update())
	e.want(map[string]string{"a": "last", "b": "changed here", "staged": "made here"})
}

// A run that was killed half-way is finished.
func TestUpdateWorkTreeAfterAKill(t *testing.T) {
	e := newExported(t, newRepo(t))
	e.commit("refs/heads/main", "a", "1")
	from := e.commit("refs/heads/main", "b", "1")
	e.bring()
	e.must(e.update())
	e.commit("refs/heads/main", "a", "22")
	to := e.commit("refs/heads/main", "new", "22")
	e.bring()
	e.write("a", "2") // cut short
	e.write("new", "22")
	e.write("mine", "untracked")
	e.write("b", "changed here")
	e.write(".git/index.lock", "")
	e.write(".git/"+checkoutFile, from+" "+to+"\n")
	e.must(e.update())
	e.want(map[string]string{"a": "22", "new": "22", "mine": "untracked", "b": "changed here"})

	e.write(".git/"+checkoutFile, from+" "+to+"\n") // killed after the index was written
	e.commit("refs/heads/main", "a", "333")
	e.bring()
	e.must(e.update())
	e.want(map[string]string{"a": "333", "new": "22", "mine": "untracked", "b": "changed here"})
}

// A clone that others made is gone on with, unless it has staged changes.
func TestUpdateWorkTreeOfAForeignClone(t *testing.T) {
	e := newExported(t, newRepo(t))
	e.commit("refs/heads/main", "a", "1")
	e.must(os.RemoveAll(e.dir))
	runIn(t, "git", "-c", "protocol.file.allow=always", "clone", "-q", e.sourceRepo.dir, e.dir)
	e.write("staged", "made here")
	runIn(t, "git", "-C", e.dir, "add", "staged")
	e.commit("refs/heads/main", "a", "2")
	e.bring()
	if err := e.update(); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("staged changes: %v", err)
	}
	e.want(map[string]string{"a": "1", "staged": "made here"})
	runIn(t, "git", "-C", e.dir, "rm", "-q", "--cached", "staged")
	e.must(e.update())
	e.want(map[string]string{"a": "2", "staged": "made here"})
}

func TestUpdateWorkTreeRunsNothing(t *testing.T) {
	e := newExported(t, newRepo(t))
	e.commit("refs/heads/main", ".gitattributes", "* filter=evil\n")
	e.commit("refs/heads/main", "a", "1")
	e.bring()
	marker := filepath.Join(t.TempDir(), "ran")
	for _, key := range []string{"filter.evil.smudge", "core.fsmonitor", "filter.evil.clean"} {
		runIn(t, "git", "-C", e.dir, "config", key, "touch "+marker+"; cat")
	}
	hook := "#!/bin/sh\ntouch '" + marker + "'\n"
	e.must(os.MkdirAll(filepath.Join(e.dir, ".git", "hooks"), 0o755))
	e.must(os.WriteFile(filepath.Join(e.dir, ".git", "hooks", "post-checkout"), []byte(hook), 0o755))
	e.must(e.update())
	e.want(map[string]string{"a": "1"})
	if _, err := os.Stat(marker); err == nil {
		t.Error("a program of the repository was run")
	}
}

// Links in a repository lead nobody out of the clone.
func TestUpdateWorkTreeStaysInside(t *testing.T) {
	s := newRepo(t)
	outside := t.TempDir()
	secret := filepath.Join(outside, "file")
	if err := os.WriteFile(secret, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	blob := s.gitIn(outside, "hash-object", "-w", "--stdin")
	link := s.gitIn("120000 blob "+blob+"\tlink\x00", "mktree", "-z")
	first := s.git("commit-tree", link, "-m", "a link")
	s.git("update-ref", "refs/heads/main", first)
	e := newExported(t, s)
	e.bring()
	e.must(e.update())
	inner := s.gitIn("100644 blob "+s.gitIn("x", "hash-object", "-w", "--stdin")+"\tfile\x00", "mktree", "-z")
	second := s.git("commit-tree", s.gitIn("040000 tree "+inner+"\tlink\x00", "mktree", "-z"), "-m", "a directory")
	s.git("update-ref", "refs/heads/main", second)
	e.bring()
	e.write(".git/"+checkoutFile, emptyTree("sha1")+" "+second+"\n") // as if a kill had left link/file there
	e.update()                                                       //nolint:errcheck // what matters is what it does not do
	if raw, err := os.ReadFile(secret); string(raw) != "theirs" {
		t.Fatalf("the file outside is %q, %v", raw, err)
	}
	e.write(".git/"+checkoutFile, first+"\n")
	e.must(e.update())
	e.want(map[string]string{"link/file": "x"})
	if raw, err := os.ReadFile(secret); string(raw) != "theirs" {
		t.Fatalf("the file outside is %q, %v", raw, err)
	}
}

func TestLost(t *testing.T) {
	s := newRepo(t)
	base := s.commit("refs/heads/main", "a", "1")
	passed := s.commit("refs/heads/main", "a", "2")
	tip := s.commit("refs/heads/main", "a", "3")
	forced := s.commitOn(base, "b", "forced away")
	under := base
	s.git("tag", "-a", "-m", "x", "v1", tip)
	tag := s.git("rev-parse", "v1")
	none := strings.Repeat("1", 40)
	tests := []struct {
		name          string
		before, after []string
		want          []string
	}{
		{"forward", []string{base, passed, under}, []string{tip}, nil},
		{"force push", []string{tip}, []string{forced}, []string{tip}},
		{"a tag deleted", []string{tag, passed}, []string{tip}, []string{tag}},
		{"a tag that stays", []string{passed, tip}, []string{tag}, nil},
		{"never there", []string{none, forced}, []string{tip, none}, []string{forced}},
		{"all gone", []string{base}, nil, []string{base}},
	}
	for _, test := range tests {
		got, err := Lost(t.Context(), s.dir, test.before, test.after)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, %v; want %v", test.name, got, err, test.want)
		}
	}
	if _, err := Lost(t.Context(), s.dir, []string{"--all"}, nil); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("an option: %v", err)
	}
}
