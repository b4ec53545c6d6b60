package bitbucket_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/bitbucket"
	"github.com/backstay/backstay/internal/forge/forgetest"
)

const email = "tester@example.com"

// fake renders a world as Bitbucket's API does; owners are workspaces.
type fake struct {
	world    *forgetest.World
	member   []string // of these workspaces
	snippets map[string][]string
	shift    func() // called before each second page
	shelf    shelf
	patches  map[string]string // by number of the pull request
	denied   map[string]bool   // paths that the token may not read
	forgets  bool              // lists never tell who takes part
	tracker  bool              // repositories say that they have an issue tracker
}

func (f *fake) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2.0/user", f.user)
	mux.HandleFunc("GET /2.0/user/workspaces", f.workspaces)
	mux.HandleFunc("GET /2.0/repositories/{workspace}", f.repositories)
	mux.HandleFunc("GET /2.0/repositories/{workspace}/{repository}", f.repository)
	mux.HandleFunc("GET /2.0/repositories/{workspace}/{repository}/{path...}", f.beside)
	mux.HandleFunc("GET /repo/{id}/images/{name}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "\x89PNG") })
	mux.HandleFunc("GET /2.0/snippets/{workspace}", f.listSnippets)
	mux.HandleFunc("GET /2.0/snippets/{workspace}/{id}", f.snippet)
	good := map[string]bool{
		"Bearer " + forgetest.Token: true,
		"Basic " + base64.StdEncoding.EncodeToString([]byte(email+":"+forgetest.Token)): true,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !good[r.Header.Get("Authorization")] {
			refuse(w, http.StatusUnauthorized, "Token is invalid, expired, or not supported for this endpoint.")
			return
		}
		w.Header().Set("X-OAuth-Scopes", strings.Join(append([]string{"read:user:bitbucket"}, f.world.Token().Scopes...), ", "))
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]any{"type": "error", "error": map[string]any{"message": message}})
}

func uuid(r forgetest.Repo) string { return fmt.Sprintf("{00000000-0000-4000-8000-%012d}", r.ID) }

func render(r forgetest.Repo) map[string]any {
	body := map[string]any{
		"type": "repository", "uuid": uuid(r), "full_name": r.FullName(), "name": strings.ToTitle(r.Name), "slug": r.Name, "scm": "git",
		"description": r.Description, "is_private": r.Private, "has_wiki": r.Wiki, "language": strings.ToLower(r.Language),
		"size": r.Size, "created_on": r.Created, "updated_on": r.Updated, "parent": nil, "mainbranch": nil,
		"links": map[string]any{
			"html": map[string]any{"href": "https://bitbucket.org/" + r.FullName()},
			"clone": []map[string]any{
				{"name": "https", "href": "https://tester@bitbucket.org/" + r.FullName() + ".git"},
				{"name": "ssh", "href": "git@bitbucket.org:" + r.FullName() + ".git"},
			},
		},
	}
	if !r.Empty {
		body["mainbranch"] = map[string]any{"type": "branch", "name": r.DefaultBranch}
	}
	if r.Fork {
		body["parent"] = map[string]any{"type": "repository", "full_name": "upstream/x"}
	}
	return body
}

func (f *fake) page(w http.ResponseWriter, r *http.Request, items []any) {
	number, _ := strconv.Atoi(r.FormValue("page"))
	size, _ := strconv.Atoi(r.FormValue("pagelen"))
	number, size = max(number, 1), min(max(size, 10), 100)
	from := min((number-1)*size, len(items))
	to := min(from+size, len(items))
	body := map[string]any{"page": number, "pagelen": size, "size": len(items), "values": append([]any{}, items[from:to]...)}
	if to < len(items) {
		query := r.URL.Query()
		query.Set("page", strconv.Itoa(number+1))
		body["next"] = "http://" + r.Host + r.URL.EscapedPath() + "?" + query.Encode()
	}
	answer(w, http.StatusOK, body)
}

func (f *fake) user(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"type": "user", "uuid": "{u}", "nickname": f.world.Token().Account})
}

func (f *fake) workspaces(w http.ResponseWriter, r *http.Request) {
	var items []any
	for _, name := range f.member {
		items = append(items, map[string]any{"type": "workspace_access", "administrator": false, "workspace": map[string]any{"slug": name, "uuid": "{" + name + "}"}})
	}
	f.page(w, r, items)
}

func (f *fake) repositories(w http.ResponseWriter, r *http.Request) {
	if f.world.OwnerID(r.PathValue("workspace")) == 0 {
		refuse(w, http.StatusNotFound, "No workspace with identifier.")
		return
	}
	if f.shift != nil && r.FormValue("page") == "2" {
		f.shift()
	}
	var items []any
	for _, repo := range f.world.Of(r.PathValue("workspace"), false) {
		shown := render(repo)
		shown["has_issues"] = f.tracker
		items = append(items, shown)
	}
	f.page(w, r, items)
}

func (f *fake) repository(w http.ResponseWriter, r *http.Request) {
	workspace, name := r.PathValue("workspace"), r.PathValue("repository")
	for _, repo := range f.world.All() {
		if !(workspace == "{}" && uuid(repo) == name) && repo.FullName() != workspace+"/"+name {
			continue
		}
		if repo.Blocked {
			refuse(w, http.StatusUnavailableForLegalReasons, "Unavailable")
			return
		}
		answer(w, http.StatusOK, render(repo))
		return
	}
	refuse(w, http.StatusNotFound, "Repository not found")
}

func renderSnippet(workspace, id string) map[string]any {
	return map[string]any{
		"type": "snippet", "id": id, "title": "Notes: " + id, "scm": "git", "is_private": true, "updated_on": "2026-01-02T03:04:05.171820+00:00",
		"links": map[string]any{"clone": []map[string]any{
			{"name": "https", "href": "https://tester@bitbucket.org/snippets/" + workspace + "/" + id + "/notes.git"},
			{"name": "ssh", "href": "git@bitbucket.org:snippets/" + workspace + "/" + id + "/notes.git"},
		}},
	}
}

func (f *fake) listSnippets(w http.ResponseWriter, r *http.Request) {
	var items []any
	for _, id := range f.snippets[r.PathValue("workspace")] {
		items = append(items, renderSnippet(r.PathValue("workspace"), id))
	}
	f.page(w, r, items)
}

func (f *fake) snippet(w http.ResponseWriter, r *http.Request) {
	for _, id := range f.snippets[r.PathValue("workspace")] {
		if id == r.PathValue("id") {
			answer(w, http.StatusOK, renderSnippet(r.PathValue("workspace"), id))
			return
		}
	}
	refuse(w, http.StatusNotFound, "Snippet not found")
}

// bench is a fake Bitbucket and a provider that asks it.
type bench struct {
	*bitbucket.Provider
	fake   *fake
	world  *forgetest.World
	server *forgetest.Server
	clock  *forgetest.Clock
}

func pathEnds(suffix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, suffix) }
}

func newBench(t *testing.T, o bitbucket.Options) *bench {
	t.Helper()
	clock := forgetest.NewClock()
	w := forgetest.NewWorld(clock.Now)
	f := &fake{world: w, snippets: map[string][]string{}}
	server := forgetest.NewServer(t, f.handler(), false, clock.Now)
	o.URL, o.Client = server.URL, forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep}
	p, err := bitbucket.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{p, f, w, server, clock}
}

func TestConformance(t *testing.T) {
	forgetest.Run(t, forgetest.Dialect{
		Handler: func(w *forgetest.World) http.Handler { return (&fake{world: w}).handler() },
		New: func(o forge.ClientOptions) (forge.Provider, error) {
			return bitbucket.New(bitbucket.Options{URL: o.Base, Token: forgetest.Token, Username: email, Client: o})
		},
		Tells: "private fork empty wiki description branch",
		ETags: true, Scope: "read:repository:bitbucket", Unmarked: true, Untold: true,
	})
}
