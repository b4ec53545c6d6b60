package gitlab_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitlab"
)

// fake renders a world as GitLab's API does.
type fake struct {
	world   *forgetest.World
	premium bool // it has pull mirrors

	mu        sync.Mutex
	snippets  []map[string]any
	starred   []string // full names
	contrib   []string
	mirrors   map[int64]map[string]any
	languages map[int64]map[string]float64
	deny      map[string]bool // groups that the token may not make
	shift     func()          // called before each second page of a listing that is cut by number

	shelves map[int64]shelf // what projects have beside their code
	uploads map[string]string
	hidden  map[string]bool // paths below a project that its role may not see
	old     bool            // its GraphQL lacks what is asked for
	lastID  int64
	tick    int // seconds that stamps are ahead

	owner50  bool                     // the account owns the projects, and may set dates
	branches map[string]string        // commits by name
	settings map[int64]map[string]any // that a project was given
	refuse   func(call string) bool   // what is changed, "POST issues/1/notes"; nil for nothing
}

func newFake(w *forgetest.World) *fake {
	return &fake{
		world: w, mirrors: map[int64]map[string]any{}, languages: map[int64]map[string]float64{}, deny: map[string]bool{},
		shelves: map[int64]shelf{}, uploads: map[string]string{}, hidden: map[string]bool{}, lastID: 5000,
		branches: map[string]string{}, settings: map[int64]map[string]any{},
	}
}

func (f *fake) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /user":                              f.user,
		"GET /personal_access_tokens/self":       f.token,
		"GET /projects":                          f.membership,
		"GET /users/{name}/projects":             f.userProjects,
		"GET /users/{name}/starred_projects":     f.userStarred,
		"GET /users/{name}/contributed_projects": f.contributed,
		"GET /groups/{path}/projects":            f.groupProjects,
		"GET /projects/{id}":                     f.project,
		"GET /projects/{id}/languages":           f.projectLanguages,
		"GET /projects/{id}/issues":              f.issues,
		"GET /snippets":                          f.listSnippets,
		"GET /snippets/{id}":                     f.snippet,
		"GET /namespaces/{path}":                 f.namespace,
		"POST /projects":                         f.makeProject,
		"POST /groups":                           f.makeGroup,
		"GET /projects/{id}/mirror/pull":         f.mirror,
		"PUT /projects/{id}/mirror/pull":         f.setMirror,
		"GET /projects/{id}/{rest...}":           f.metadata,
		"POST /projects/{id}/{rest...}":          f.change,
		"PUT /projects/{id}/{rest...}":           f.change,
		"DELETE /projects/{id}/{rest...}":        f.change,
		"PUT /projects/{id}":                     f.editProject,

		"GET /projects/{id}/repository/branches": f.listBranches,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /api/v4"+path, handle)
	}
	mux.HandleFunc("POST /api/graphql", f.graphQL)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("PRIVATE-TOKEN") != forgetest.Token && r.Header.Get("Authorization") != "Bearer "+forgetest.Token {
			refuse(w, http.StatusUnauthorized, "401 Unauthorized")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]any{"message": message})
}

func (f *fake) render(r forgetest.Repo) map[string]any {
	visibility, wiki := "public", "enabled"
	if r.Private {
		visibility = "private"
	}
	if !r.Wiki {
		wiki = "disabled"
	}
	p := map[string]any{
		"id": r.ID, "path": r.Name, "name": r.Name, "path_with_namespace": r.FullName(), "description": r.Description,
		"default_branch": r.DefaultBranch, "visibility": visibility, "archived": r.Archived, "empty_repo": r.Empty,
		"star_count": r.Stars, "created_at": r.Created, "last_activity_at": r.Updated, "wiki_access_level": wiki,
		// As seen from inside of the server's own network.
		"http_url_to_repo": "http://gitlab.internal/" + r.FullName() + ".git",
		"ssh_url_to_repo":  "git@gitlab.internal:" + r.FullName() + ".git",
		"web_url":          "http://gitlab.internal/" + r.FullName(),
		"statistics":       map[string]any{"repository_size": r.Size},
	}
	if r.Fork {
		p["forked_from_project"] = map[string]any{"id": 1, "name": "upstream"}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owner50 {
		p["permissions"] = map[string]any{"project_access": map[string]any{"access_level": 50}, "group_access": nil}
	}
	maps.Copy(p, f.settings[r.ID])
	if f.premium {
		p["mirror"] = f.mirrors[r.ID] != nil
	}
	return p
}

// list answers with a page: after an ID where keyset pagination is asked for, else by its number.
func (f *fake) list(w http.ResponseWriter, r *http.Request, all []forgetest.Repo) {
	var items []any
	keyset := r.FormValue("pagination") == "keyset"
	after, _ := strconv.ParseInt(r.FormValue("id_after"), 10, 64)
	for _, repo := range all {
		if !keyset || repo.ID > after {
			items = append(items, f.render(repo))
		}
	}
	if !keyset {
		page(w, r, items)
		return
	}
	n, _ := strconv.Atoi(r.FormValue("per_page"))
	if n = min(n, 100); len(items) > n {
		items = items[:n]
		last := items[n-1].(map[string]any)["id"]
		link(w, r, "id_after", fmt.Sprint(last))
	}
	answer(w, http.StatusOK, items)
}

// page answers with the page that is asked for by its number.
func page(w http.ResponseWriter, r *http.Request, items []any) {
	number, _ := strconv.Atoi(r.FormValue("page"))
	size, _ := strconv.Atoi(r.FormValue("per_page"))
	number, size = max(number, 1), min(max(size, 1), 100)
	if number*size > 50_000 {
		answer(w, http.StatusMethodNotAllowed, map[string]any{"error": "Offset pagination has a maximum allowed offset of 50000 for requests"})
		return
	}
	from := min((number-1)*size, len(items))
	to := min(from+size, len(items))
	if to < len(items) {
		link(w, r, "page", strconv.Itoa(number+1))
	}
	if len(items) <= 10_000 {
		w.Header().Set("X-Total", strconv.Itoa(len(items)))
	}
	answer(w, http.StatusOK, append([]any{}, items[from:to]...))
}

func link(w http.ResponseWriter, r *http.Request, name, value string) {
	query := r.URL.Query()
	query.Set(name, value)
	// As servers do that do not know by which name they are reached.
	w.Header().Set("Link", fmt.Sprintf(`<http://gitlab.internal%s?%s>; rel="next"`, r.URL.EscapedPath(), query.Encode()))
}

func (f *fake) user(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"id": 1, "username": f.world.Token().Account})
}

func (f *fake) token(w http.ResponseWriter, _ *http.Request) {
	token := f.world.Token()
	body := map[string]any{"id": 4, "active": true, "scopes": append([]string{}, token.Scopes...), "expires_at": nil}
	if !token.Expires.IsZero() {
		body["expires_at"] = token.Expires.Format(time.DateOnly)
	}
	answer(w, http.StatusOK, body)
}

func (f *fake) membership(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.FormValue("starred") == "true":
		f.list(w, r, f.named(f.starred))
	case r.FormValue("membership") == "true":
		f.list(w, r, f.world.All())
	default:
		refuse(w, http.StatusTeapot, "nobody wants all projects of a server")
	}
}

func (f *fake) named(names []string) []forgetest.Repo {
	var all []forgetest.Repo
	for _, r := range f.world.All() {
		if slices.Contains(names, r.FullName()) {
			all = append(all, r)
		}
	}
	return all
}

func (f *fake) userProjects(w http.ResponseWriter, r *http.Request) {
	if f.world.OwnerID(r.PathValue("name")) == 0 {
		refuse(w, http.StatusNotFound, "404 User Not Found")
		return
	}
	f.list(w, r, f.world.Of(r.PathValue("name"), false))
}

func (f *fake) userStarred(w http.ResponseWriter, r *http.Request) { f.list(w, r, f.named(f.starred)) }

func (f *fake) contributed(w http.ResponseWriter, r *http.Request) { f.list(w, r, f.named(f.contrib)) }

func (f *fake) groupProjects(w http.ResponseWriter, r *http.Request) {
	group := r.PathValue("path")
	if f.world.OwnerID(group) == 0 {
		refuse(w, http.StatusNotFound, "404 Group Not Found")
		return
	}
	if f.shift != nil && r.FormValue("page") == "2" {
		f.shift()
	}
	f.list(w, r, f.world.Of(group, r.FormValue("include_subgroups") == "true"))
}

// find answers for a project by number or path. What was renamed is found by its old path too, as clients see it that follow redirects.
func (f *fake) find(w http.ResponseWriter, r *http.Request) (forgetest.Repo, bool) {
	name := r.PathValue("id")
	repo, _, found := f.world.ByName(name)
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		repo, found = f.world.ByID(id)
	}
	switch {
	case !found:
		refuse(w, http.StatusNotFound, "404 Project Not Found")
	case repo.Blocked:
		refuse(w, http.StatusUnavailableForLegalReasons, "451")
		found = false
	}
	return repo, found
}

func (f *fake) project(w http.ResponseWriter, r *http.Request) {
	if repo, ok := f.find(w, r); ok {
		answer(w, http.StatusOK, f.render(repo))
	}
}

func (f *fake) projectLanguages(w http.ResponseWriter, r *http.Request) {
	if repo, ok := f.find(w, r); ok {
		answer(w, http.StatusOK, f.languages[repo.ID])
	}
}

func (f *fake) issues(w http.ResponseWriter, r *http.Request) {
	if repo, ok := f.find(httptest.NewRecorder(), r); ok && len(f.world.Issues(repo.ID)) == 0 {
		r.SetPathValue("rest", "issues")
		f.metadata(w, r)
		return
	}
	repo, ok := f.find(w, r)
	if !ok {
		return
	}
	var since time.Time
	if after := r.FormValue("created_after"); after != "" {
		since, _ = time.Parse(time.RFC3339Nano, after)
	}
	var items []any
	for _, i := range f.world.Issues(repo.ID) {
		// Some were made in one instant.
		created := repo.Created.Add(time.Duration(max(i.Number, 150)) * time.Second)
		if !created.Before(since) {
			items = append(items, map[string]any{"iid": i.Number, "id": i.Number + 9000, "title": i.Title, "created_at": created, "updated_at": i.Updated})
		}
	}
	page(w, r, items)
}

func (f *fake) listSnippets(w http.ResponseWriter, r *http.Request) {
	var items []any
	for _, s := range f.snippets {
		items = append(items, s)
	}
	page(w, r, items)
}

func (f *fake) snippet(w http.ResponseWriter, r *http.Request) {
	for _, s := range f.snippets {
		if fmt.Sprint(s["id"]) == r.PathValue("id") {
			answer(w, http.StatusOK, s)
			return
		}
	}
	refuse(w, http.StatusNotFound, "404 Snippet Not Found")
}

func (f *fake) namespace(w http.ResponseWriter, r *http.Request) {
	path := r.PathValue("path")
	id := f.world.OwnerID(path)
	if number, err := strconv.ParseFloat(path, 64); err == nil && f.owner(number) != "" {
		id, path = int64(number), f.owner(number)
	}
	if id == 0 {
		refuse(w, http.StatusNotFound, "404 Namespace Not Found")
		return
	}
	answer(w, http.StatusOK, map[string]any{"id": id, "full_path": path, "kind": "group"})
}

func (f *fake) owner(id float64) string {
	for _, name := range f.world.Owners() {
		if float64(f.world.OwnerID(name)) == id {
			return name
		}
	}
	return ""
}

func (f *fake) makeProject(w http.ResponseWriter, r *http.Request) {
	body := decoded(r)
	owner := f.world.Token().Account
	if id, ok := body["namespace_id"].(float64); ok {
		owner = f.owner(id)
	}
	name := body["path"].(string)
	if _, moved, found := f.world.ByName(owner + "/" + name); found && !moved {
		answer(w, http.StatusBadRequest, map[string]any{"message": map[string]any{"path": []string{"has already been taken"}}})
		return
	}
	made := f.world.Add(forgetest.Repo{Owner: owner, Name: name, Empty: true, Private: body["visibility"] != "public"})
	answer(w, http.StatusCreated, f.render(made))
}

func (f *fake) makeGroup(w http.ResponseWriter, r *http.Request) {
	body := decoded(r)
	path := body["path"].(string)
	if parent, ok := body["parent_id"].(float64); ok {
		path = f.owner(parent) + "/" + path
	}
	if f.deny[path] {
		refuse(w, http.StatusForbidden, "403 Forbidden")
		return
	}
	if _, err := strconv.Atoi(path); err == nil {
		refuse(w, http.StatusBadRequest, "path is an ID")
		return
	}
	f.world.AddOwner(path)
	answer(w, http.StatusCreated, map[string]any{"id": f.world.OwnerID(path), "full_path": path})
}

func (f *fake) mirror(w http.ResponseWriter, r *http.Request) {
	repo, ok := f.find(w, r)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mirrors[repo.ID] == nil {
		refuse(w, http.StatusBadRequest, "The project is not mirrored")
		return
	}
	answer(w, http.StatusOK, f.mirrors[repo.ID])
}

func (f *fake) setMirror(w http.ResponseWriter, r *http.Request) {
	repo, ok := f.find(w, r)
	if !ok {
		return
	}
	if !f.premium {
		refuse(w, http.StatusNotFound, "404 Not Found")
		return
	}
	body := decoded(r)
	u, _ := url.Parse(body["url"].(string))
	u.User = url.UserPassword("*****", "*****") // as it tells them ever after
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mirrors[repo.ID] = map[string]any{"id": 7, "enabled": body["enabled"], "url": u.String()}
	answer(w, http.StatusOK, f.mirrors[repo.ID])
}

func decoded(r *http.Request) map[string]any {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		panic(err)
	}
	return body
}

// bench is a fake GitLab and a provider that asks it.
type bench struct {
	*gitlab.Provider
	fake   *fake
	world  *forgetest.World
	server *forgetest.Server
	clock  *forgetest.Clock
}

func newBench(t *testing.T) *bench {
	t.Helper()
	clock := forgetest.NewClock()
	w := forgetest.NewWorld(clock.Now)
	f := newFake(w)
	server := forgetest.NewServer(t, f.handler(), false, clock.Now)
	p, err := gitlab.New(gitlab.Options{
		URL: server.URL, Token: forgetest.Token, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{p, f, w, server, clock}
}

func TestConformance(t *testing.T) {
	dialect := forgetest.Dialect{
		Handler: func(w *forgetest.World) http.Handler { return newFake(w).handler() },
		New: func(o forge.ClientOptions) (forge.Provider, error) {
			return gitlab.New(gitlab.Options{URL: o.Base, Token: forgetest.Token, Client: o})
		},
		Owners: []string{"acme", "acme/team", "umbrella"},
		Tells:  "private archived fork empty wiki stars description branch",
		ETags:  true, Scope: "read_api", Expiry: true, Unmarked: true,
	}
	t.Run("of a group", func(t *testing.T) { forgetest.Run(t, dialect) })
	dialect.Owners = nil
	dialect.Selection = func(owner string) forge.Selection { return forge.Selection{User: owner, Wikis: true} }
	t.Run("of a user", func(t *testing.T) { forgetest.Run(t, dialect) })
}
