package cli

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
)

func TestAnImportArchiveIsMadeOfARepository(t *testing.T) {
	f := newFixture(t)
	to := filepath.Join(t.TempDir(), "api.tar.gz")
	f.addRepository(t, map[string]string{
		"issues/1": `{"number": 1, "title": "It breaks", "user": {"login": "ann"}, "created_at": "2026-01-01T00:00:00Z"}`,
	})
	args := []string{"restore", "latest", "--part", "acme/api", "--format", formatGitLab, "--to", to}
	if status := f.run(t.Context(), append(args, "--plan")...); status != 0 || exists(to) || !strings.Contains(f.stdout.String(), "item.author: changed (GitLab finds") {
		t.Fatalf("the plan: %d, %s%s", status, &f.stdout, &f.stderr)
	}
	if status := f.run(t.Context(), args...); status != 0 || !strings.Contains(f.stdout.String(), "to "+to) ||
		!strings.Contains(f.stdout.String(), "1 issue, 0 merge requests") || !strings.Contains(f.stdout.String(), "0 of 1 person") {
		t.Fatalf("%d, %s%s", status, &f.stdout, &f.stderr)
	}
	found := unpacked(t, to)
	if bundle := found["project.bundle"]; !strings.Contains(bundle, "refs/heads/main") || !strings.Contains(bundle, "refs/merge-requests/2/head") {
		t.Errorf("the bundle is %.200q", bundle)
	}
	if !strings.Contains(found["tree/project/issues.ndjson"], `"title":"It breaks"`) {
		t.Errorf("the issues are %q", found["tree/project/issues.ndjson"])
	}
	if left, err := os.ReadDir(filepath.Dir(to)); err != nil || len(left) != 1 {
		t.Errorf("beside the file there is %v, %v", left, err)
	}
	if status := f.run(t.Context(), args...); status != 6 {
		t.Errorf("over a file that is there: %d", status)
	}
}

// addRepository makes a point of a repository of GitHub, "acme/api", with a branch, the head of a pull request, and records: "issues/1".
func (f *fixture) addRepository(t *testing.T, records map[string]string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(t.TempDir(), "acme", "api.git")
	must(exec.CommandContext(t.Context(), "git", "init", "-q", "--bare", "-b", "main", at).Run())
	fill := exec.CommandContext(t.Context(), "git", "--git-dir="+at, "fast-import", "--quiet")
	fill.Stdin = strings.NewReader("commit refs/heads/main\ncommitter A <a@example.org> 0 +0000\ndata 1\nx\nreset refs/pull/2/head\nfrom refs/heads/main\n\n")
	must(fill.Run())
	code, err := git.NewSource(at, git.SourceOptions{Hostname: "github.com"})
	must(err)
	draft, err := f.store.Begin(t.Context(), code.Subject(), "nightly")
	must(err)
	must(code.Capture(t.Context(), draft))
	bare := strings.TrimSuffix(strings.TrimPrefix(code.PartName(), "git/"), ".git")
	part, err := draft.Part(t.Context(), "forge/"+bare+"/metadata", point.KindMetadata)
	must(err)
	w, err := archive.NewWriter(t.Context(), part)
	must(err)
	w.Header.Dialect, w.Header.Host, w.Header.Repository = "github", "github.com", "acme/api"
	for key, raw := range records {
		_, err := w.Add(t.Context(), archive.Record{Key: keyOf(key), Raw: json.RawMessage(raw)})
		must(err)
	}
	must(w.Flush(t.Context()))
	must(part.Store(t.Context(), point.Part{}))
	_, err = draft.Commit(t.Context())
	must(err)
}

// unpacked are the files of an archive by their names.
func unpacked(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = string(content)
	}
}

func TestAnImportArchiveIsAFileOfOneRepository(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there.tar.gz")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := restoreOptions{to: there, dump: dumpRestore{format: formatGitLab}}
	if _, _, err := o.stage(); !errors.Is(err, fault.ErrExists) {
		t.Errorf("a file that is there: %v", err)
	}
	o.to = filepath.Join(t.TempDir(), "new.tar.gz")
	dir, remove, err := o.stage()
	if err != nil || filepath.Dir(dir) != filepath.Dir(o.to) {
		t.Errorf("it is made in %q, %v", dir, err)
	}
	if remove(); exists(dir) {
		t.Error("the directory stays")
	}
	two := []point.Part{stored("forge/h/a/b/metadata"), stored("git/h/a/b.git"), stored("forge/h/a/c/metadata"), stored("git/h/a/c.git")}
	if err := onlyOne(two, ""); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("two repositories: %v", err)
	}
	if err := onlyOne(two, "a/c"); err != nil {
		t.Error(err)
	}
}

func stored(name string) point.Part {
	p := point.Part{Name: name, Kind: point.KindGit, State: point.Stored}
	if strings.HasSuffix(name, "/metadata") {
		p.Kind = point.KindMetadata
	}
	return p
}
