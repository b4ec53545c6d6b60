package git

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/backstay/backstay/internal/point"
)

// large adds a commit with a pointer to a large file, whose object the repository has unless missing. It returns the
// object's id.
func (s *sourceRepo) large(file, content string, missing bool) string {
	s.t.Helper()
	sum := sha256.Sum256([]byte(content))
	oid := hex.EncodeToString(sum[:])
	s.commit("refs/heads/main", file, fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content)))
	if !missing {
		s.object(oid, content)
	}
	return oid
}

func (s *sourceRepo) object(oid, content string) {
	s.t.Helper()
	path := filepath.Join(s.dir, "lfs", objectPath(oid))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func lfsPart(t *testing.T, r *point.Receipt) point.Part {
	t.Helper()
	i := slices.IndexFunc(r.Point.Parts, func(p point.Part) bool { return p.Kind == point.KindLFS })
	if i < 0 {
		t.Fatalf("there is no part of LFS objects: %+v", r.Point.Parts)
	}
	return r.Point.Parts[i]
}

func TestLargeFiles(t *testing.T) {
	s := newRepo(t)
	one := s.large("one.bin", strings.Repeat("one", 1000), false)
	b := newBench(t, s.dir)
	first := b.backup()
	if p := lfsPart(t, first); p.Name != b.last.PartName()+"/lfs" || p.Bytes < 3000 || p.Counts[0].Stored != 1 || p.Counts[0].Expected != 1 {
		t.Errorf("the part of LFS objects is %+v", p)
	}

	gone := s.large("gone.bin", "gone for good", true)
	two := s.large("two.bin", strings.Repeat("two", 1000), false)
	s.commit("refs/heads/main", "fake", strings.Repeat("version https://git-lfs.github.com/spec/v1\n", 4))
	second := b.backup()
	count := lfsPart(t, second).Counts[0]
	if count.Expected != 3 || count.Stored != 2 || !slices.Equal(count.MissingAtSource, []string{gone}) {
		t.Errorf("counts are %+v", count)
	}
	if second.Ledger.MissingAtSource != 1 || second.Point.State != point.Complete {
		t.Errorf("the point is %s, its ledger %+v", second.Point.State, second.Ledger)
	}
	if n := lfsPart(t, second).NewBytes; n < 3000 || n > 3500 {
		t.Errorf("%d bytes stored for 3,000 new ones", n)
	}
	third := b.backup()
	if count := lfsPart(t, third).Counts[0]; len(count.MissingAtSource) != 1 {
		t.Errorf("the missing object is forgotten: %+v", count)
	}

	s.object(gone, "gone for good") // somebody pushed it after all
	if count := lfsPart(t, b.backup()).Counts[0]; count.Stored != 3 || len(count.MissingAtSource) > 0 {
		t.Errorf("the object that came back is not stored: %+v", count)
	}

	dir := b.restore(second.Point.ID)
	requireSame(t, s.dir, dir)
	for oid, content := range map[string]string{one: strings.Repeat("one", 1000), two: strings.Repeat("two", 1000)} {
		if raw, err := os.ReadFile(filepath.Join(dir, "lfs", objectPath(oid))); err != nil || string(raw) != content {
			t.Errorf("restored object %s has %d bytes, %v", oid, len(raw), err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "lfs", lfsFile)); err == nil {
		t.Error("our list was restored")
	}
}

// One object that does not come costs no other, and the others are not asked for again.
func TestOneLargeFileDoesNotCome(t *testing.T) {
	s := newRepo(t)
	s.large("good.bin", strings.Repeat("good", 1000), false)
	bad := s.large("bad.bin", strings.Repeat("evil", 1000), true)
	s.object(bad, strings.Repeat("live", 1000))
	b := newBench(t, s.dir)
	r, err := b.try()
	if err != nil {
		t.Fatal(err)
	}
	p := lfsPart(t, r)
	if p.State != point.Stored || p.Counts[0].Stored != 1 || p.Counts[0].Expected != 2 || len(p.Counts[0].MissingAtSource) > 0 {
		t.Errorf("the part is %+v", p)
	}
	if r.Point.State != point.Incomplete || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], bad) {
		t.Errorf("the point is %s, the notes %q", r.Point.State, p.Notes)
	}

	s.object(bad, strings.Repeat("evil", 1000))
	r = b.backup()
	if p := lfsPart(t, r); r.Point.State != point.Complete || p.Counts[0].Stored != 2 || p.NewBytes < 4000 || p.NewBytes > 4500 {
		t.Errorf("the point is %s, its part %+v", r.Point.State, p)
	}
}

func TestLargeFilesLeftOut(t *testing.T) {
	s := newRepo(t)
	s.large("one.bin", "one", false)
	b := newBench(t, s.dir)
	b.o.SkipLFS = true
	if p := lfsPart(t, b.backup()); p.State != point.Skipped || p.Reason == "" {
		t.Errorf("the part is %+v", p)
	}
	b.o.SkipLFS = false
	if p := lfsPart(t, b.backup()); p.State != point.Stored || p.Counts[0].Stored != 1 {
		t.Errorf("the part is %+v", p)
	}
}

// A server whose LFS fails takes nothing from the repository, and what was stored before stands in.
func TestLFSServerDown(t *testing.T) {
	root := t.TempDir()
	s := newRepo(t)
	if err := os.Rename(s.dir, filepath.Join(root, "api.git")); err != nil {
		t.Fatal(err)
	}
	s.dir = filepath.Join(root, "api.git")
	s.commit("refs/heads/main", "a", "1")
	var lfsRequests atomic.Int64
	backend := httpBackend(root)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/info/lfs/") {
			lfsRequests.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	defer server.Close()
	b := newBench(t, server.URL+"/api.git")
	b.backup()
	if n := lfsRequests.Load(); n != 0 {
		t.Errorf("%d requests to the LFS server for a repository without large files", n)
	}

	s.large("one.bin", "one", false)
	r, err := b.try()
	if err != nil {
		t.Fatal(err)
	}
	if p := lfsPart(t, r); p.State != point.Failed || p.Reason == "" || r.Point.State != point.Incomplete {
		t.Errorf("the point is %s, its part %+v", r.Point.State, p)
	}
	if r.Point.Parts[0].State != point.Stored {
		t.Errorf("the repository is %s", r.Point.Parts[0].State)
	}
	requireSame(t, s.dir, b.restore(r.Point.ID))
	if r, err = b.try(); err != nil || lfsPart(t, r).State != point.Failed {
		t.Errorf("an unchanged repository with large files missing: %v, %v", r, err)
	}
}

func TestLargeFilesInAClone(t *testing.T) {
	if err := exec.CommandContext(t.Context(), "git", "lfs", "version").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("git-lfs is not installed")
		}
		t.Skip("git-lfs is not installed")
	}
	s := newRepo(t)
	s.commit("refs/heads/main", ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
	s.large("one.bin", strings.Repeat("one", 1000), false)
	b := newBench(t, s.dir)
	dir, err := b.clone(b.backup().Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "one.bin")); err != nil || len(raw) != 3000 {
		t.Errorf("the large file has %d bytes, %v", len(raw), err)
	}
	if hooks, _ := os.ReadDir(filepath.Join(dir, ".git", "hooks")); len(hooks) > 0 {
		t.Errorf("there are hooks: %v", hooks)
	}
	if status := stockGit(t, dir, "status", "--porcelain"); status != "" {
		t.Errorf("git status says %q", status)
	}
}
