package git

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// sourceRepo is a repository that a test makes and backs up.
type sourceRepo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T, args ...string) *sourceRepo {
	t.Helper()
	s := &sourceRepo{t, filepath.Join(t.TempDir(), "source.git")}
	s.git(append([]string{"init", "-q", "--bare", "-b", "main"}, args...)...)
	return s
}

// git runs git on the repository and returns what it printed, without the last line feed.
func (s *sourceRepo) git(args ...string) string { return s.gitIn("", args...) }

func (s *sourceRepo) gitIn(stdin string, args ...string) string {
	s.t.Helper()
	out, err := runGit(s.t.Context(), s.dir, stdin, args...)
	if err != nil {
		s.t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func runGit(ctx context.Context, dir, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"--git-dir=" + dir}, args...)...)
	cmd.Env = append(cleanEnviron(os.Environ()), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME=/dev/null",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=1700000000 +0000",
		"GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@example.org", "GIT_COMMITTER_DATE=1700000000 +0000")
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", &programError{program: "git", said: stderr.String(), err: err}
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// commit adds a commit with one file to a ref, on top of what the ref names, and returns it.
func (s *sourceRepo) commit(ref, file, content string) string {
	s.t.Helper()
	parent, _ := runGit(s.t.Context(), s.dir, "", "rev-parse", "-q", "--verify", ref)
	oid := s.commitOn(parent, file, content)
	s.git("update-ref", ref, oid)
	return oid
}

// commitOn makes a commit on a parent, "" for none.
func (s *sourceRepo) commitOn(parent, file, content string) string {
	s.t.Helper()
	blob := s.gitIn(content, "hash-object", "-w", "--stdin")
	entries := ""
	if parent != "" {
		entries = s.git("ls-tree", "-z", parent)
	}
	var kept []string
	for e := range strings.SplitSeq(entries, "\x00") {
		if e != "" && !strings.HasSuffix(e, "\t"+file) {
			kept = append(kept, e)
		}
	}
	kept = append(kept, "100644 blob "+blob+"\t"+file)
	tree := s.gitIn(strings.Join(kept, "\x00")+"\x00", "mktree", "-z")
	args := []string{"commit-tree", tree, "-m", "change " + file}
	if parent != "" {
		args = append(args, "-p", parent)
	}
	return s.git(args...)
}

// bench is a store with a clock that goes on by an hour at each look.
type bench struct {
	t     *testing.T
	store *memory.Store
	url   string
	o     SourceOptions
	last  *Source
}

func newBench(t *testing.T, url string) *bench {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &bench{t: t, url: url, o: SourceOptions{Hostname: "host", Scratch: t.TempDir()}, store: memory.New(func() time.Time {
		now = now.Add(time.Hour)
		return now
	})}
}

// try backs the repository up.
func (b *bench) try() (*point.Receipt, error) {
	b.t.Helper()
	s, err := NewSource(b.url, b.o)
	if err != nil {
		return nil, err
	}
	b.last = s
	d, err := b.store.Begin(b.t.Context(), s.Subject(), "")
	if err != nil {
		return nil, err
	}
	defer d.Abandon(b.t.Context())
	if err := s.Capture(b.t.Context(), d); err != nil {
		return nil, err
	}
	if left, _ := os.ReadDir(b.o.Scratch); len(left) > 0 {
		b.t.Errorf("the scratch directory still holds %v", left)
	}
	return d.Commit(b.t.Context())
}

// backup backs the repository up, which must make a complete point.
func (b *bench) backup() *point.Receipt {
	b.t.Helper()
	r, err := b.try()
	if err != nil {
		b.t.Fatal(err)
	}
	if r.Point.State != point.Complete {
		b.t.Fatalf("the point is %s: %+v", r.Point.State, r.Point.Parts)
	}
	return r
}

// part opens the repository's part of a point.
func (b *bench) part(id string) point.Reader {
	b.t.Helper()
	_, r, err := b.store.Open(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return below{r, b.last.PartName()}
}

// below reads a directory of a point.
type below struct {
	point.Reader
	dir string
}

func (b below) List(ctx context.Context, p string) ([]point.Entry, error) {
	return b.Reader.List(ctx, filepath.Join(b.dir, p))
}

func (b below) Open(ctx context.Context, p string) (io.ReadSeekCloser, error) {
	return b.Reader.Open(ctx, filepath.Join(b.dir, p))
}

func (b below) Extract(ctx context.Context, p, dest string) error {
	return b.Reader.Extract(ctx, filepath.Join(b.dir, p), dest)
}

// restore restores a point to a bare repository.
func (b *bench) restore(id string) string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "restored.git")
	if err := RestoreBare(b.t.Context(), b.part(id), dir, RestoreOptions{}); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// look is all that git tells of a repository: refs with what they come down to, HEAD, and every object they reach.
func look(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{
		{"for-each-ref", "--format=%(objectname) %(*objectname) %(objecttype) %(symref) %(refname)"},
		{"rev-parse", "--show-object-format"},
		{"rev-list", "--objects", "--all"},
	} {
		out, err := runGit(t.Context(), dir, "", args...)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(out + "\n--\n")
	}
	headFile, err := os.ReadFile(filepath.Join(dir, "HEAD"))
	if err != nil {
		t.Fatal(err)
	}
	return all.String() + string(headFile)
}

// requireSame fails unless git cannot tell two repositories apart, and finds nothing wrong in the restored one.
func requireSame(t *testing.T, source, restored string) {
	t.Helper()
	if want, got := look(t, source), look(t, restored); got != want {
		t.Fatalf("restored repository differs:\n%s\nthe source is:\n%s", got, want)
	}
	if _, err := runGit(t.Context(), restored, "", "fsck", "--full"); err != nil {
		t.Fatalf("fsck of the restored repository: %v", err)
	}
	for _, own := range []string{refsFile, tipsFile, lfsFile, "hooks"} {
		if _, err := os.Lstat(filepath.Join(restored, own)); err == nil {
			t.Errorf("the restored repository has %s", own)
		}
	}
}

func TestCaptureAndRestore(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	s.commit("refs/heads/main", "b", "2")
	b := newBench(t, s.dir)
	requireSame(t, s.dir, b.restore(b.backup().Point.ID))
}
