//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hub stands in for GitHub, which cannot be had: its API as far as listing goes, and git over http from bare repositories.
type hub struct {
	server *httptest.Server
	dir    string // OWNER/NAME.git
	token  string

	mu           sync.Mutex
	url          string // of what it links to
	login        string // of the token
	repositories []*hubRepository
	api          int                     // requests to the API
	lists        map[string]int          // ref lists asked for, by repository
	fetches      map[string]int          // packs delivered whole, by repository
	refuse       func(*http.Request) int // status to answer instead; 0 for none
}

type hubRepository struct {
	ID          int
	Owner, Name string
	Pushed      time.Time
	Wiki, Fork  bool
	Issues      int
}

// newHub starts a hub without repositories. The token's account is acme.
func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{
		dir: t.TempDir(), token: "hub-token-0123456789abcdef", login: owner, lists: map[string]int{}, fetches: map[string]int{},
	}
	h.server = httptest.NewServer(h)
	h.url = h.server.URL
	t.Cleanup(h.server.Close)
	return h
}

// add makes a repository with one commit of its own.
func (h *hub) add(t *testing.T, owner, name string) *hubRepository {
	t.Helper()
	dir := filepath.Join(h.dir, owner, name+".git")
	git(t, h.dir, "init", "--quiet", "--bare", "--initial-branch=main", dir)
	h.mu.Lock()
	r := &hubRepository{ID: 1000 + len(h.repositories), Owner: owner, Name: name}
	h.repositories = append(h.repositories, r)
	h.mu.Unlock()
	h.push(t, r, "first")
	return r
}

// push adds a commit to a repository.
func (h *hub) push(t *testing.T, r *hubRepository, text string) {
	t.Helper()
	dir := filepath.Join(h.dir, r.Owner, r.Name+".git")
	var script strings.Builder
	fmt.Fprintf(&script, "commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata %d\n%s\n", 1700000000+r.ID, len(text), text)
	if _, err := os.Stat(filepath.Join(dir, "refs/heads/main")); err == nil {
		script.WriteString("from refs/heads/main^0\n")
	}
	body := strings.Repeat(r.Owner+"/"+r.Name+" "+text+"\n", 50)
	fmt.Fprintf(&script, "M 100644 inline %s.txt\ndata %d\n%s\n", text, len(body), body)
	cmd := exec.CommandContext(t.Context(), "git", "--git-dir", dir, "fast-import", "--quiet", "--force")
	cmd.Env = cleanEnv()
	cmd.Stdin = strings.NewReader(script.String())
	if r := finish(t, cmd); r.exit != 0 {
		t.Fatalf("fast-import: %s", r.stderr)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Pushed = time.Now().Add(-time.Hour) // long enough ago to be told from the next push
	if text != "first" {
		r.Pushed = r.Pushed.Add(time.Duration(len(text)) * time.Second)
	}
}

// bare is where a repository lies.
func (h *hub) bare(owner, name string) string { return filepath.Join(h.dir, owner, name+".git") }

// reset forgets what was counted.
func (h *hub) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.api, h.lists, h.fetches = 0, map[string]int{}, map[string]int{}
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// packs is how many were delivered whole. One may be on its way to who was killed.
func (h *hub) packs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return sum(h.fetches)
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	refuse := h.refuse
	h.mu.Unlock()
	if refuse != nil {
		if status := refuse(r); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	if api, ok := h.apiPath(r); ok {
		h.answer(w, r, api)
		return
	}
	h.git(w, r)
}

// apiPath is the path of a request to the API: below /api/v3 as on a server of one's own, or at api.github.com.
func (h *hub) apiPath(r *http.Request) (string, bool) {
	if p, ok := strings.CutPrefix(r.URL.Path, "/api/v3"); ok {
		return p, true
	}
	return r.URL.Path, strings.HasPrefix(r.Host, "api.")
}

func (h *hub) answer(w http.ResponseWriter, r *http.Request, api string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.api++
	if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, " "+h.token) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"message":"Bad credentials"}`)
		return
	}
	w.Header().Set("X-OAuth-Scopes", "repo, read:org, gist")
	w.Header().Set("Content-Type", "application/json")
	parts := strings.Split(strings.Trim(api, "/"), "/")
	switch {
	case api == "/user":
		_ = json.NewEncoder(w).Encode(map[string]any{"login": h.login, "id": 1, "type": "User"})
	case api == "/user/repos":
		h.page(w, r, h.of(func(*hubRepository) bool { return true }))
	case len(parts) == 3 && (parts[0] == "users" || parts[0] == "orgs") && parts[2] == "repos":
		h.page(w, r, h.of(func(repository *hubRepository) bool { return repository.Owner == parts[1] }))
	case len(parts) == 2 && (parts[0] == "users" || parts[0] == "orgs"):
		_ = json.NewEncoder(w).Encode(map[string]any{"login": parts[1], "id": 2, "type": "User"})
	case len(parts) == 4 && parts[0] == "repos" && parts[3] == "issues":
		h.page(w, r, h.issues(parts[1], parts[2]))
	case len(parts) == 2 && parts[0] == "repositories":
		h.one(w, func(repository *hubRepository) bool { return strconv.Itoa(repository.ID) == parts[1] })
	case len(parts) == 3 && parts[0] == "repos":
		h.one(w, func(repository *hubRepository) bool {
			return repository.Owner == parts[1] && repository.Name == parts[2]
		})
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"Not Found"}`)
	}
}

func (h *hub) issues(owner, name string) []any {
	var all []any
	for _, r := range h.repositories {
		for n := range r.Issues {
			if r.Owner == owner && r.Name == name {
				all = append(all, map[string]any{"number": n + 1, "title": fmt.Sprintf("issue %d", n+1), "state": "open", "updated_at": "2026-01-02T03:04:05Z"})
			}
		}
	}
	return all
}

func (h *hub) one(w http.ResponseWriter, is func(*hubRepository) bool) {
	found := h.of(is)
	if len(found) == 0 {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"Not Found"}`)
		return
	}
	_ = json.NewEncoder(w).Encode(found[0])
}

// of renders the repositories that are meant.
func (h *hub) of(is func(*hubRepository) bool) []any {
	found := []any{}
	for _, r := range h.repositories {
		if !is(r) {
			continue
		}
		full := r.Owner + "/" + r.Name
		found = append(found, map[string]any{
			"id": r.ID, "node_id": fmt.Sprintf("R_%d", r.ID), "name": r.Name, "full_name": full, "owner": map[string]any{"login": r.Owner, "id": 7},
			"private": true, "visibility": "private", "fork": r.Fork, "archived": false, "disabled": false, "has_wiki": r.Wiki, "size": 1,
			"clone_url": h.url + "/" + full + ".git", "ssh_url": "git@github.com:" + full + ".git", "html_url": h.url + "/" + full,
			"default_branch": "main", "description": nil, "language": "Go", "stargazers_count": 3, "topics": []string{},
			"pushed_at": r.Pushed.UTC().Format(time.RFC3339), "updated_at": r.Pushed.UTC().Format(time.RFC3339), "created_at": "2020-01-01T00:00:00Z",
		})
	}
	return found
}

// page answers one page of a list, with the links that lead on.
func (h *hub) page(w http.ResponseWriter, r *http.Request, all []any) {
	query := r.URL.Query()
	size, _ := strconv.Atoi(query.Get("per_page"))
	number, _ := strconv.Atoi(query.Get("page"))
	size, number = min(max(size, 30), 100), max(number, 1)
	from := min((number-1)*size, len(all))
	to := min(from+size, len(all))
	if to < len(all) {
		query.Set("page", strconv.Itoa(number+1))
		root := "http://" + r.Host
		if r.TLS != nil {
			root = "https://" + r.Host
		}
		w.Header().Set("Link", fmt.Sprintf("<%s%s?%s>; rel=\"next\"", root, r.URL.Path, query.Encode()))
	}
	_ = json.NewEncoder(w).Encode(slices.Clone(all[from:to]))
}

// git serves a repository, and counts what was asked of it.
func (h *hub) git(w http.ResponseWriter, r *http.Request) {
	name, _, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	if _, err := os.Stat(filepath.Join(h.dir, filepath.FromSlash(path.Clean("/"+name+".git")))); !found || err != nil {
		http.NotFound(w, r)
		return
	}
	if _, password, _ := r.BasicAuth(); password != h.token {
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was killed
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	backend := cgi.Handler{
		Path: filepath.Join(gitExecPath(), "git-http-backend"), Dir: h.dir,
		Env: []string{"GIT_PROJECT_ROOT=" + h.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol"), "HOME=" + h.dir},
	}
	backend.ServeHTTP(w, r)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case bytes.Contains(body, []byte("command=ls-refs")):
		h.lists[name]++
	case bytes.Contains(body, []byte("command=fetch")) && r.Context().Err() == nil:
		h.fetches[name]++
	}
}

var gitExecPath = sync.OnceValue(func() string {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
})
