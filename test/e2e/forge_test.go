//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestForge(t *testing.T) {
	g := startGitea(t)
	t.Run("lfs with an object missing at the source", func(t *testing.T) { testLFS(t, g) })
	t.Run("killed between two parts", func(t *testing.T) { testGoesOn(t, g) })
	t.Run("unchanged", func(t *testing.T) { testUnchanged(t, g) })
	t.Run("wrong token", func(t *testing.T) { testWrongToken(t, g) })
	t.Run("unknown certificate", func(t *testing.T) { testUnknownCertificate(t, g) })
	t.Run("push to a new repository", func(t *testing.T) { testPush(t, g) })
}

// withToken is the environment by which Backstay reaches Gitea.
func (g *gitea) withToken() []string {
	return []string{"BACKSTAY_GIT_USERNAME=" + owner, "BACKSTAY_GIT_PASSWORD=" + g.token}
}

// fill pushes a repository with three LFS objects and returns its URL and the objects' ids.
func (g *gitea) fill(t *testing.T, name string) (address string, oids []string) {
	t.Helper()
	address = g.create(t, name)
	work := newWorkTree(t)
	git(t, work, "lfs", "install", "--local")
	git(t, work, "lfs", "track", "*.bin")
	for _, file := range []string{"one.bin", "two.bin", "old.bin"} {
		content := strings.Repeat(name+" "+file+"\n", 1000)
		write(t, work, file, content)
		oids = append(oids, sha256Hex(content))
	}
	git(t, work, "add", ".")
	git(t, work, "commit", "--quiet", "-m", "large files")
	git(t, work, "rm", "--quiet", "old.bin") // still in the history
	git(t, work, "commit", "--quiet", "-m", "one less")
	git(t, work, "remote", "add", "origin", address)
	gitEnv(t, g.gitEnv(), work, "push", "--quiet", "origin", "--all")
	gitEnv(t, g.gitEnv(), work, "push", "--quiet", "origin", "--tags")
	return address, oids
}

func sha256Hex(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// stored is where Gitea keeps an LFS object.
func (g *gitea) stored(oid string) string {
	return filepath.Join(g.dir, "lfs", oid[:2], oid[2:4], oid[4:])
}

func testLFS(t *testing.T, g *gitea) {
	address, oids := g.fill(t, "large-files")
	if err := os.Remove(g.stored(oids[1])); err != nil {
		t.Fatal(err)
	}
	b := newBackstay(t, g.withToken()...)
	r := b.backup(t, address, "--ca-file", g.ca) // exit 0: what the source has was stored

	if r.Point.State != "complete" || !r.Ledger.Closed || r.Ledger.MissingAtSource != 1 {
		t.Errorf("point %s, ledger %+v; want a complete point, a closed ledger, 1 missing at source", r.Point.State, r.Ledger)
	}
	found := false
	for _, p := range r.Point.Parts {
		for _, c := range p.Counts {
			if len(c.MissingAtSource) > 0 {
				found = true
				if c.Expected != 3 || c.Stored != 2 || !strings.Contains(c.MissingAtSource[0], oids[1]) {
					t.Errorf("part %s counts %+v; want 2 of 3 stored, %s missing", p.Name, c, oids[1])
				}
			}
		}
	}
	if !found {
		t.Errorf("no part names the missing object: %+v", r.Point.Parts)
	}

	dir, mirror := filepath.Join(t.TempDir(), "restored"), filepath.Join(t.TempDir(), "mirror")
	b.ok(t, "restore", "latest", "--to", dir)
	gitEnv(t, append(g.gitEnv(), "GIT_LFS_SKIP_SMUDGE=1"), "", "clone", "--quiet", "--mirror", address, mirror)
	same(t, dir, mirror)
	for i, oid := range oids {
		object := filepath.Join(dir, "lfs", "objects", oid[:2], oid[2:4], oid)
		content, err := os.ReadFile(object)
		sum := sha256.Sum256(content)
		switch {
		case i == 1 && !os.IsNotExist(err):
			t.Errorf("the object missing at the source was restored: %v", err)
		case i != 1 && (err != nil || hex.EncodeToString(sum[:]) != oid):
			t.Errorf("LFS object %s: %v, %d bytes that are not it", oid, err, len(content))
		}
	}
	b.ok(t, "verify", "--read-data")
}

// A run that is killed while LFS objects come in leaves the repository itself checkpointed: the next run fetches no pack.
func testGoesOn(t *testing.T, g *gitea) {
	address, _ := g.fill(t, "goes-on")
	work := newWorkTree(t) // 10 MB are worth a checkpoint at once
	noise := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	write(t, work, "noise", string(noise))
	git(t, work, "add", ".")
	git(t, work, "commit", "--quiet", "-m", "noise")
	gitEnv(t, g.gitEnv(), work, "push", "--quiet", address, "main:noise")
	b := newBackstay(t, g.withToken()...)
	var packs atomic.Int64
	stalled, release := make(chan struct{}, 10), make(chan struct{})
	watch := func(r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/git-upload-pack"):
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return // the server will see for itself
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte("command=fetch")) {
				packs.Add(1)
			}
		case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/info/lfs/objects/"):
			stalled <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	}
	g.watch.Store(&watch)
	defer g.watch.Store(nil)

	cmd := b.command(t.Context(), "backup", address, "--ca-file", g.ca)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-stalled
	time.Sleep(10 * time.Second) // for the checkpoint that follows the end of a part
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	close(release)
	if n, ids := packs.Swap(0), b.points(t); n != 1 || len(ids) != 0 {
		t.Fatalf("the killed run fetched %d packs and left points %v; want 1 and none", n, ids)
	}

	r := b.backup(t, address, "--ca-file", g.ca)
	if n := packs.Load(); n != 0 || r.Point.State != "complete" {
		t.Errorf("the next run fetched %d packs, and its point is %s; want 0 and complete", n, r.Point.State)
	}
	dir, mirror := filepath.Join(t.TempDir(), "restored"), filepath.Join(t.TempDir(), "mirror")
	b.ok(t, "restore", "latest", "--to", dir)
	gitEnv(t, append(g.gitEnv(), "GIT_LFS_SKIP_SMUDGE=1"), "", "clone", "--quiet", "--mirror", address, mirror)
	same(t, dir, mirror)
}

func testUnchanged(t *testing.T, g *gitea) {
	address, _ := g.fill(t, "unchanged")
	b := newBackstay(t, g.withToken()...)
	b.backup(t, address, "--ca-file", g.ca)
	r := b.backup(t, address, "--ca-file", g.ca)
	// Over http the server's abilities and its refs are two requests of one connection.
	if r.Requests > 2 || r.StoredBytes > 10_000 {
		t.Errorf("%d requests, %d bytes stored; want at most 2 and 10,000", r.Requests, r.StoredBytes)
	}
}

func testWrongToken(t *testing.T, g *gitea) {
	address := g.create(t, "secret")
	b := newBackstay(t, "BACKSTAY_GIT_USERNAME="+owner, "BACKSTAY_GIT_PASSWORD=not-the-token")
	r := b.run(t, "backup", address, "--ca-file", g.ca)
	if r.exit != 5 || !strings.Contains(r.stderr, "backstay: hint: ") {
		t.Errorf("exit %d, want 5 and a hint:\n%s", r.exit, r.stderr)
	}
	if strings.Contains(r.stdout+r.stderr, "not-the-token") {
		t.Errorf("the token was printed:\n%s%s", r.stdout, r.stderr)
	}
	if ids := b.points(t); len(ids) != 0 {
		t.Errorf("points %v; want none", ids)
	}
}

func testUnknownCertificate(t *testing.T, g *gitea) {
	address := g.create(t, "untrusted")
	b := newBackstay(t, g.withToken()...)
	r := b.run(t, "backup", address)
	if r.exit == 0 || !strings.Contains(r.stderr, "certificate") {
		t.Errorf("exit %d, want a failure that speaks of the certificate:\n%s", r.exit, r.stderr)
	}
}

func testPush(t *testing.T, g *gitea) {
	address, oids := g.fill(t, "pushed-from")
	to := g.create(t, "pushed-to")
	b := newBackstay(t, g.withToken()...)
	b.backup(t, address, "--ca-file", g.ca)
	b.ok(t, "restore", "latest", "--to", to, "--ca-file", g.ca)

	got, want := gitEnv(t, g.gitEnv(), "", "ls-remote", to), gitEnv(t, g.gitEnv(), "", "ls-remote", address)
	if got != want {
		t.Errorf("refs after the push:\n got %s\nwant %s", got, want)
	}
	if n := g.offered(t, to, oids); n != len(oids) {
		t.Errorf("the new repository offers %d of %d LFS objects", n, len(oids))
	}
	if r := b.run(t, "restore", "latest", "--to", to, "--ca-file", g.ca); r.exit != 0 && r.exit != 6 {
		t.Errorf("pushing again: exit %d, want 0 (nothing to do) or 6 (refused):\n%s", r.exit, r.stderr)
	}
}

// offered counts the LFS objects that a repository would hand out.
func (g *gitea) offered(t *testing.T, address string, oids []string) int {
	t.Helper()
	type object struct {
		OID     string         `json:"oid"`
		Size    int            `json:"size"`
		Actions map[string]any `json:"actions,omitempty"`
	}
	var batch struct {
		Operation string   `json:"operation"`
		Objects   []object `json:"objects"`
	}
	batch.Operation = "download"
	for _, oid := range oids {
		info, err := os.Stat(g.stored(oid))
		if err != nil {
			t.Fatal(err)
		}
		batch.Objects = append(batch.Objects, object{OID: oid, Size: int(info.Size())})
	}
	body, err := json.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/info/lfs/objects/batch", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(owner, g.token)
	request.Header.Set("Accept", "application/vnd.git-lfs+json")
	request.Header.Set("Content-Type", "application/vnd.git-lfs+json")
	response, err := g.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	batch.Objects = nil
	if err := json.NewDecoder(response.Body).Decode(&batch); err != nil {
		t.Fatalf("batch of %s: %s: %v", address, response.Status, err)
	}
	n := 0
	for _, o := range batch.Objects {
		if o.Actions["download"] != nil {
			n++
		}
	}
	return n
}
