package git

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
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
	out, err := outputOf(ctx, dir, stdin, args...)
	return strings.TrimSuffix(string(out), "\n"), err
}

func outputOf(ctx context.Context, dir, stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"--git-dir=" + dir}, args...)...)
	cmd.Env = append(cleanEnviron(os.Environ()), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME=/dev/null",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=1700000000 +0000",
		"GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@example.org", "GIT_COMMITTER_DATE=1700000000 +0000")
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, &programError{program: "git", said: stderr.String(), err: err}
	}
	return out, nil
}

// commit adds a commit with one file to a ref, on top of what the ref names, and returns it.
func (s *sourceRepo) commit(ref, file, content string) string {
	s.t.Helper()
	from := ""
	if parent, err := runGit(s.t.Context(), s.dir, "", "rev-parse", "-q", "--verify", ref); err == nil {
		from = "from " + parent + "\n"
	}
	var path strings.Builder
	for i := range len(file) {
		fmt.Fprintf(&path, "\\%03o", file[i])
	}
	// One process in place of five: tests make many commits.
	return s.gitIn(fmt.Sprintf("feature done\ncommit %s\nmark :1\ncommitter C <c@example.org> 1700000000 +0000\ndata 0\n%sM 100644 inline \"%s\"\ndata %d\n%s\nget-mark :1\ndone\n",
		ref, from, path.String(), len(content), content), "fast-import", "--quiet")
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
	return &bench{t: t, url: url, o: SourceOptions{Options: testOptions(), Hostname: "host", Scratch: t.TempDir()}, store: memory.New(func() time.Time {
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
	return protect.Within(r, b.last.PartName())
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

// requestsToList is what a list of refs costs: the server's greeting, and the list.
const requestsToList = 2

func TestRepositoriesComeBack(t *testing.T) {
	cases := []struct {
		name string
		args []string // of git init
		make func(s *sourceRepo)
	}{
		{name: "empty", make: func(*sourceRepo) {}},
		{name: "ordinary", make: func(s *sourceRepo) {
			s.commit("refs/heads/main", "a", "1")
			s.commit("refs/heads/main", "b", "2")
		}},
		{name: "unborn HEAD", make: func(s *sourceRepo) {
			s.commit("refs/heads/other", "a", "1")
			s.git("symbolic-ref", "HEAD", "refs/heads/not-there")
		}},
		{name: "detached HEAD", make: func(s *sourceRepo) {
			s.git("update-ref", "--no-deref", "HEAD", s.commit("refs/heads/main", "a", "1"))
		}},
		{name: "detached HEAD on a commit that no ref reaches", make: func(s *sourceRepo) {
			first := s.commit("refs/heads/main", "a", "1")
			s.git("update-ref", "--no-deref", "HEAD", s.commitOn(first, "a", "2"))
		}},
		{name: "SHA-256", args: []string{"--object-format=sha256"}, make: func(s *sourceRepo) {
			s.commit("refs/heads/main", "a", "1")
			s.git("tag", "-m", "one", "v1", "refs/heads/main")
		}},
		{name: "SHA-256 and empty", args: []string{"--object-format=sha256"}, make: func(*sourceRepo) {}},
		{name: "5,000 refs", make: func(s *sourceRepo) {
			oid := s.commit("refs/heads/main", "a", "1")
			l := &RefList{Format: "sha1", Refs: []Ref{{Name: "refs/heads/main", OID: oid}}}
			for i := range 5000 {
				l.Refs = append(l.Refs, Ref{Name: fmt.Sprintf("refs/pull/%04d/head", i), OID: oid})
			}
			if err := os.WriteFile(filepath.Join(s.dir, "packed-refs"), packedRefs(l), 0o600); err != nil {
				s.t.Fatal(err)
			}
		}},
		{name: "tags of tags, of a tree and of a blob", make: func(s *sourceRepo) {
			s.commit("refs/heads/main", "a", "1")
			s.git("tag", "-m", "one", "v1", "refs/heads/main")
			s.git("tag", "-m", "two", "nested", "v1")
			s.git("tag", "light", "refs/heads/main")
			s.git("tag", "-m", "tree", "of-tree", "refs/heads/main^{tree}")
			s.git("tag", "of-blob", "refs/heads/main:a")
		}},
		{name: "notes and replace refs", make: func(s *sourceRepo) {
			first := s.commit("refs/heads/main", "a", "1")
			second := s.commit("refs/heads/main", "a", "2")
			s.git("notes", "add", "-m", "remark", second)
			s.git("update-ref", "refs/replace/"+second, s.commitOn(first, "a", "3"))
		}},
		{name: "a submodule, a symbolic link and a program", make: func(s *sourceRepo) {
			blob := s.gitIn("x", "hash-object", "-w", "--stdin")
			tree := s.gitIn("100755 blob "+blob+"\trun\n120000 blob "+blob+"\tlink\n160000 commit "+strings.Repeat("1", 40)+"\tsub\n", "mktree", "--missing")
			s.git("update-ref", "refs/heads/main", s.git("commit-tree", "-m", "x", tree))
		}},
		{name: "symbolic refs", make: func(s *sourceRepo) {
			s.commit("refs/heads/main", "a", "1")
			s.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/main")
		}},
		{name: "names that are not UTF-8", make: func(s *sourceRepo) {
			s.commit("refs/heads/caf\xe9", "na\xefve", "1")
			s.commit("refs/heads/main", "tab\tand\nline", "2")
			s.git("symbolic-ref", "refs/heads/symb\xf4lique", "refs/heads/main")
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newRepo(t, c.args...)
			c.make(s)
			b := newBench(t, s.dir)
			r := b.backup()
			requireSame(t, s.dir, b.restore(r.Point.ID))

			again := b.backup()
			if again.Ledger.NewBytes != 0 || b.last.Requests() != requestsToList {
				t.Errorf("unchanged, yet %d bytes in %d requests", again.Ledger.NewBytes, b.last.Requests())
			}
			requireSame(t, s.dir, b.restore(again.Point.ID))
		})
	}
}

// A stored part is a repository by itself, for those who read the vault without Backstay.
func TestStoredPartIsARepository(t *testing.T) {
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	s.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/main")
	b := newBench(t, s.dir)
	r := b.backup()
	dir := filepath.Join(t.TempDir(), "stored.git")
	if err := b.part(r.Point.ID).Extract(t.Context(), ".", dir); err != nil {
		t.Fatal(err)
	}
	if want, got := look(t, s.dir), look(t, dir); got != want {
		t.Errorf("git reads\n%s\nof the stored part; the source is\n%s", got, want)
	}
}

// TestHistoryOfChanges changes one repository in every way that a server allows, and restores every point.
func TestHistoryOfChanges(t *testing.T) {
	s := newRepo(t)
	b := newBench(t, s.dir)
	first := s.commit("refs/heads/main", "a", "1")
	var looks, ids []string
	steps := []struct {
		name   string
		change func()
		fetch  bool // whether anything new must be fetched
	}{
		{"the first", func() { s.commit("refs/heads/foo", "a", "2") }, true},
		{"a commit more", func() { s.commit("refs/heads/main", "b", "3") }, true},
		{"foo becomes foo/bar", func() {
			oid := s.git("rev-parse", "refs/heads/foo")
			s.git("update-ref", "-d", "refs/heads/foo")
			s.git("update-ref", "refs/heads/foo/bar", oid)
		}, false},
		{"a new branch on an old commit", func() { s.git("update-ref", "refs/heads/old", first) }, false},
		{"a tag on what is there", func() { s.git("tag", "-m", "one", "v1", first) }, true},
		{"a forced push", func() { s.git("update-ref", "refs/heads/main", s.commitOn(first, "c", "4")) }, true},
		{"gone from the server for good", func() {
			s.git("update-ref", "-d", "refs/heads/foo/bar")
			s.git("reflog", "expire", "--expire=now", "--all")
			s.git("repack", "-q", "-a", "-d")
			s.git("prune", "--expire=now")
			s.commit("refs/heads/main", "d", "5")
		}, true},
		{"reset to an older commit", func() { s.git("update-ref", "refs/heads/main", first) }, false},
		{"nothing left", func() {
			for _, ref := range []string{"refs/heads/main", "refs/heads/old", "refs/tags/v1"} {
				s.git("update-ref", "-d", ref)
			}
		}, false},
		{"and a new beginning", func() { s.commit("refs/heads/main", "z", "26") }, true},
	}
	for _, step := range steps {
		step.change()
		looks = append(looks, look(t, s.dir))
		ids = append(ids, b.backup().Point.ID)
		if fetched := b.last.Requests() > requestsToList; fetched != step.fetch {
			t.Errorf("%s: fetched is %v", step.name, fetched)
		}
	}
	for i, step := range steps {
		dir := b.restore(ids[i])
		if got := look(t, dir); got != looks[i] {
			t.Errorf("%s: restored\n%s\nwas\n%s", step.name, got, looks[i])
		}
		if _, err := runGit(t.Context(), dir, "", "fsck", "--full"); err != nil {
			t.Errorf("%s: fsck: %v", step.name, err)
		}
	}
}

func TestOnlyNewObjectsAreReceived(t *testing.T) {
	s := newRepo(t)
	noise := rand.New(rand.NewPCG(1, 2))
	b := newBench(t, s.dir)
	for step := range 5 {
		content := make([]byte, 100_000)
		for i := range content {
			content[i] = byte(noise.Uint32())
		}
		s.commit("refs/heads/main", fmt.Sprintf("file%d", step), string(content))
		r := b.backup()
		if least, most := int64(100_000), int64(105_000); r.Ledger.NewBytes < least || r.Ledger.NewBytes > most {
			t.Errorf("step %d stored %d bytes of 100,000 new ones", step, r.Ledger.NewBytes)
		}
		if received := b.last.Received(); received > 105_000 {
			t.Errorf("step %d received %d bytes of 100,000 new ones", step, received)
		}
	}
}

func TestRefsThatForgesMakeUpAreLeftOut(t *testing.T) {
	s := newRepo(t)
	oid := s.commit("refs/heads/main", "a", "1")
	s.git("update-ref", "refs/pull/1/head", oid)
	s.git("update-ref", "refs/pull/1/merge", oid)
	b := newBench(t, s.dir)
	r := b.backup()
	part := r.Point.Parts[0]
	if c := part.Counts[0]; c.Expected != 3 || c.Stored != 2 || c.Excluded != 1 {
		t.Errorf("counts are %+v", c)
	}
	if len(part.Notes) != 1 || part.Revision != oid {
		t.Errorf("notes are %q, the revision is %s", part.Notes, part.Revision)
	}
	b.o.AllRefs = true
	requireSame(t, s.dir, b.restore(b.backup().Point.ID))
}
