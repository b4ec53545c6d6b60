package export_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs git with nobody's configuration and returns what it printed.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tryGit(t, dir, args...)
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

func tryGit(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME="+t.TempDir(),
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// upstream is a repository that is copied.
type upstream struct {
	dir  string
	name string
	n    int
}

func newUpstream(t *testing.T, name string) *upstream {
	t.Helper()
	u := &upstream{dir: filepath.Join(t.TempDir(), "upstream"), name: name}
	run(t, ".", "init", "-q", "-b", "main", u.dir)
	u.commit(t)
	return u
}

// commit adds one commit and returns its id.
func (u *upstream) commit(t *testing.T) string {
	t.Helper()
	u.n++
	must(t, os.WriteFile(filepath.Join(u.dir, fmt.Sprintf("file%d", u.n)), bytes.Repeat([]byte(fmt.Sprintf("line %d\n", u.n)), 100), 0o644))
	run(t, u.dir, "add", "-A")
	run(t, u.dir, "commit", "-q", "-m", fmt.Sprintf("commit %d", u.n))
	return run(t, u.dir, "rev-parse", "HEAD")
}

func (u *upstream) source(t *testing.T) protect.Source {
	t.Helper()
	s, err := git.NewSource(u.dir, git.SourceOptions{Name: u.name})
	must(t, err)
	return s
}

// clock counts seconds from a day in 2026.
func clock() func() time.Time {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func exporter(t *testing.T, o export.Options) *export.Exporter {
	t.Helper()
	if o.Clock == nil {
		o.Clock = clock()
	}
	if o.Scratch == "" {
		o.Scratch = t.TempDir()
	}
	e, err := export.New(o)
	must(t, err)
	return e
}

func local(t *testing.T) (*export.Local, string) {
	t.Helper()
	dir := t.TempDir()
	l, err := export.NewLocal(dir)
	must(t, err)
	return l, dir
}

func backUp(t *testing.T, e *export.Exporter, u *upstream) *point.Receipt {
	t.Helper()
	receipt, err := protect.Backup(t.Context(), e, u.source(t), "policy")
	must(t, err)
	return receipt
}

// same fails unless dir is a sound repository with the refs of the upstream, those of ours apart.
func same(t *testing.T, u *upstream, dir string) {
	t.Helper()
	if out, err := tryGit(t, dir, "fsck", "--full", "--strict"); err != nil {
		t.Fatalf("fsck: %v\n%s", err, out)
	}
	want, got := refs(t, u.dir), refs(t, dir)
	got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, "refs/backstay/") })
	if !slices.Equal(want, got) {
		t.Fatalf("refs\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want, got := run(t, u.dir, "symbolic-ref", "HEAD"), run(t, dir, "symbolic-ref", "HEAD"); want != got {
		t.Fatalf("HEAD is %s, want %s", got, want)
	}
}

func refs(t *testing.T, dir string) []string {
	t.Helper()
	return strings.Split(run(t, dir, "for-each-ref", "--format=%(objectname) %(refname)"), "\n")
}

// state is every file below dir, with its bytes and when it was written.
func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == lockFile {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		all[strings.TrimPrefix(p, dir+"/")] = info.ModTime().String() + string(data)
		return err
	}))
	return all
}

func TestBareCopyFollowsItsSource(t *testing.T) {
	t.Parallel()
	for _, structured := range []bool{false, true} {
		t.Run(fmt.Sprint(structured), func(t *testing.T) {
			place, dir := local(t)
			e := exporter(t, export.Options{Place: place, Layout: export.Layout{Structured: structured}})
			u := newUpstream(t, "example.com/acme/api")
			copied := filepath.Join(dir, "api.git")
			if structured {
				copied = filepath.Join(dir, "example.com/acme/api.git")
			}

			backUp(t, e, u)
			same(t, u, copied)

			before := state(t, dir)
			receipt := backUp(t, e, u)
			if after := state(t, dir); !equal(before, after) {
				t.Error("files were written though nothing had changed")
			}
			if receipt.Ledger.Unchanged != 1 || receipt.StoredBytes != 0 {
				t.Errorf("ledger %+v, stored %d", receipt.Ledger, receipt.StoredBytes)
			}

			// A new commit, a branch that becomes a directory, a tag.
			run(t, u.dir, "branch", "foo")
			backUp(t, e, u)
			run(t, u.dir, "branch", "-D", "foo")
			run(t, u.dir, "branch", "foo/bar")
			run(t, u.dir, "tag", "-a", "-m", "one", "v1")
			u.commit(t)
			backUp(t, e, u)
			same(t, u, copied)
			if packs, _ := filepath.Glob(copied + "/objects/pack/*.pack"); len(packs) != 2 {
				t.Errorf("packs %v", packs)
			}
			run(t, u.dir, "clone", "-q", copied, filepath.Join(t.TempDir(), "clone"))
		})
	}
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, data := range a {
		if b[name] != data {
			return false
		}
	}
	return true
}

func TestForcePushTakesNothingAway(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	e := exporter(t, export.Options{Place: place})
	u := newUpstream(t, "example.com/acme/api")
	old := u.commit(t)
	backUp(t, e, u)
	run(t, u.dir, "reset", "-q", "--hard", "HEAD~1")
	must(t, os.WriteFile(filepath.Join(u.dir, "other"), []byte("other"), 0o644))
	u.commit(t)
	backUp(t, e, u)
	copied := filepath.Join(dir, "api.git")
	same(t, u, copied)
	run(t, copied, "gc", "-q", "--prune=now")
	run(t, copied, "cat-file", "commit", old)
	u.commit(t)
	backUp(t, e, u)
	same(t, u, copied)
	run(t, copied, "gc", "-q", "--prune=now")
	run(t, copied, "cat-file", "commit", old)
}
