package forgetest

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Git serves bare repositories over smart http, and counts what is asked of each.
type Git struct {
	URL string // of the server, where NewGit started one

	root     string
	password string // "" for none

	mu     sync.Mutex
	counts map[string]Counts
}

// Counts is what was asked of one repository.
type Counts struct {
	Greetings int // requests of info/refs
	Refs      int // ls-refs
	Fetches   int
}

// Total is the number of requests.
func (c Counts) Total() int { return c.Greetings + c.Refs + c.Fetches }

// NewGit starts a server of no repositories, which ends with the test. Where password is not empty it wants that, with any user.
func NewGit(t testing.TB, password string) *Git {
	t.Helper()
	g := &Git{root: t.TempDir(), password: password, counts: map[string]Counts{}}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	g.URL = server.URL
	return g
}

func (g *Git) dir(name string) string { return filepath.Join(g.root, filepath.FromSlash(name)+".git") }

// Create makes an empty repository: "acme/api", "acme/api.wiki".
func (g *Git) Create(t testing.TB, name string) {
	t.Helper()
	dir := g.dir(name)
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, content := range map[string]string{
		"HEAD": "ref: refs/heads/main\n", "config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Commit adds a commit of one file to main, and makes the repository where it is missing.
func (g *Git) Commit(t testing.TB, name, file, content string) {
	t.Helper()
	if _, err := os.Stat(g.dir(name)); err != nil {
		g.Create(t, name)
	}
	var stream strings.Builder
	message := "change " + file
	fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter Tester <tester@example.com> 1767225600 +0000\ndata %d\n%s\n", len(message), message)
	if _, err := os.Stat(filepath.Join(g.dir(name), "refs/heads/main")); err == nil {
		stream.WriteString("from refs/heads/main^0\n")
	}
	fmt.Fprintf(&stream, "M 644 inline %s\ndata %d\n%s\n", file, len(content), content)
	cmd := g.command(t.Context(), "fast-import", "--quiet", "--date-format=raw-permissive")
	cmd.Dir, cmd.Stdin = g.dir(name), strings.NewReader(stream.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git fast-import: %v\n%s", err, out)
	}
}

// Rename moves a repository.
func (g *Git) Rename(t testing.TB, name, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(g.dir(to)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(g.dir(name), g.dir(to)); err != nil {
		t.Fatal(err)
	}
}

// Delete removes a repository.
func (g *Git) Delete(t testing.TB, name string) {
	t.Helper()
	if err := os.RemoveAll(g.dir(name)); err != nil {
		t.Fatal(err)
	}
}

// Head is the commit of main.
func (g *Git) Head(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir(name), "refs/heads/main"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Asked tells what was asked of a repository.
func (g *Git) Asked(name string) Counts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts[name]
}

// Total sums what was asked of all repositories.
func (g *Git) Total() (sum Counts) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.counts {
		sum.Greetings, sum.Refs, sum.Fetches = sum.Greetings+c.Greetings, sum.Refs+c.Refs, sum.Fetches+c.Fetches
	}
	return sum
}

// Forget sets all counts to nothing.
func (g *Git) Forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.counts)
}

// command is git, apart from the user's own configuration.
func (g *Git) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=fastimport.unpackLimit", "GIT_CONFIG_VALUE_0=0", "GIT_CONFIG_KEY_1=uploadpack.allowFilter", "GIT_CONFIG_VALUE_1=true")
	return cmd
}

// ServeHTTP speaks the smart protocol for reading, and nothing else.
func (g *Git) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, password, _ := r.BasicAuth(); g.password != "" && password != g.password {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	name, service, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	if info, err := os.Stat(g.dir(name)); !ok || strings.Contains(name, "..") || err != nil || !info.IsDir() {
		http.Error(w, "repository not found", http.StatusNotFound)
		return
	}
	switch {
	case service == "info/refs" && r.FormValue("service") == "git-upload-pack":
		g.count(name, func(c *Counts) { c.Greetings++ })
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		io.WriteString(w, "001e# service=git-upload-pack\n0000") //nolint:errcheck // the client may have gone away
		g.uploadPack(w, r, name, nil, "--http-backend-info-refs")
	case service == "git-upload-pack" && r.Method == http.MethodPost:
		body, err := bodyOf(r)
		if err != nil {
			http.Error(w, "broken request", http.StatusBadRequest)
			return
		}
		g.count(name, func(c *Counts) {
			if bytes.Contains(body, []byte("command=ls-refs")) {
				c.Refs++
			} else {
				c.Fetches++
			}
		})
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		g.uploadPack(w, r, name, bytes.NewReader(body))
	default:
		http.Error(w, "not served", http.StatusNotFound)
	}
}

func (g *Git) count(name string, f func(*Counts)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.counts[name]
	f(&c)
	g.counts[name] = c
}

func bodyOf(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(r.Body)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func (g *Git) uploadPack(w io.Writer, r *http.Request, name string, in io.Reader, args ...string) {
	cmd := g.command(r.Context(), append(append([]string{"upload-pack", "--strict", "--stateless-rpc"}, args...), g.dir(name))...)
	cmd.Env = append(cmd.Env, "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))
	cmd.Stdin, cmd.Stdout = in, w
	cmd.Run() //nolint:errcheck // what went wrong the client notices by an answer that ends too soon
}
