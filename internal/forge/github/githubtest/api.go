// Package githubtest is a GitHub for tests: a world of package forgetest by the paths, links and objects of GitHub's APIs.
package githubtest

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// API serves a world as GitHub would: below /api/v3 and /api/graphql as an Enterprise Server, or without them as api.github.com.
// Its fields are set before it serves.
type API struct {
	World       *forgetest.World
	Users       []string // owners that are people, beside the token's account
	Gists       []Gist
	Starred     []int64 // repositories that the token's account has starred
	Contributed []int64 // repositories that it has contributed to
	Languages   map[int64]map[string]int
	Issueless   []int64 // repositories whose issues are switched off
	FineGrained bool    // the token does not tell its scopes
	SSO         string  // value of X-GitHub-SSO in listings
	App         *App
	Metadata    map[int64]*Metadata // of repositories that have any
	NoAdmin     []int64             // repositories that the token does not administer
	NoImports   bool                // there is no import of issues
	NoProjects  bool                // the token has not the scope for projects

	mu     sync.Mutex
	issued []string // tokens of the App's installation, and when they end
	ends   []time.Time
}

// Gist is a gist of an owner.
type Gist struct {
	ID, Owner string
	Secret    bool
}

// App is an installed App.
type App struct {
	ID, InstallationID int64
	Account            string // where it is installed
	Repositories       []int64
	Permissions        map[string]string
	Key                *rsa.PublicKey // its JWTs are signed by
	Short              bool           // total_count is one more than what is listed
}

// exchange is one request while it is answered.
type exchange struct {
	*API
	w         http.ResponseWriter
	r         *http.Request
	rest, web string // addresses of API and pages
	app       bool   // as an installation
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{API: a, w: w, r: r}
	scheme := r.URL.Scheme
	if scheme == "" {
		scheme = "http"
	}
	x.rest, x.web = scheme+"://"+r.Host, scheme+"://"+strings.TrimPrefix(r.Host, "api.")
	for _, prefix := range []string{"/api/v3", "/api/uploads"} {
		if path, isServer := strings.CutPrefix(r.URL.Path, prefix); isServer {
			x.rest += "/api/v3"
			r.URL.Path, r.URL.RawPath = path, strings.TrimPrefix(r.URL.RawPath, prefix)
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("X-RateLimit-Limit", "5000")
	w.Header().Set("X-RateLimit-Remaining", "4321")
	w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(a.World.Now().Add(time.Hour).Unix(), 10))
	if strings.HasPrefix(r.URL.Path, "/app/") {
		x.serveApp()
		return
	}
	if !x.admit() {
		x.answer(http.StatusUnauthorized, map[string]any{"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"})
		return
	}
	x.mux().ServeHTTP(w, r)
}

// admit looks at the credentials: the world's token, one of the App's, or none.
func (x *exchange) admit() bool {
	kind, value, _ := strings.Cut(x.r.Header.Get("Authorization"), " ")
	if _, password, ok := x.r.BasicAuth(); ok {
		value = password
	}
	switch {
	case kind == "":
		return true
	case value == forgetest.Token:
		token := x.World.Token()
		if !x.FineGrained {
			x.w.Header().Set("X-OAuth-Scopes", strings.Join(token.Scopes, ", "))
		}
		if !token.Expires.IsZero() {
			x.w.Header().Set("GitHub-Authentication-Token-Expiration", token.Expires.UTC().Format("2006-01-02 15:04:05 UTC"))
		}
		return true
	}
	x.app = x.valid(value)
	return x.app
}

func (x *exchange) mux() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, serve func()) {
		mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
			x.r = r // with the values of the pattern
			serve()
		})
	}
	x.routeMetadata(handle)
	for pattern, serve := range map[string]func(){
		"GET /user":                           x.self,
		"GET /user/repos":                     x.ownRepositories,
		"POST /user/repos":                    x.create,
		"GET /users/{owner}":                  x.user,
		"GET /users/{owner}/repos":            x.publicRepositories,
		"GET /user/{id}/repos":                x.publicRepositories,
		"GET /orgs/{owner}/repos":             x.organizationRepositories,
		"GET /organizations/{id}/repos":       x.organizationRepositories,
		"POST /orgs/{owner}/repos":            x.create,
		"GET /installation/repositories":      x.installed,
		"GET /user/starred":                   x.starred,
		"GET /users/{owner}/starred":          x.starred,
		"GET /gists":                          x.gists,
		"GET /gists/{gist}":                   x.gist,
		"GET /users/{owner}/gists":            x.gists,
		"GET /repositories/{id}":              x.repository,
		"GET /repos/{owner}/{repo}":           x.repository,
		"GET /repos/{owner}/{repo}/issues":    x.issues,
		"GET /repositories/{id}/issues":       x.issues,
		"GET /repos/{owner}/{repo}/languages": x.languages,
		"GET /rate_limit":                     x.rate,
		"POST /graphql":                       x.graphql,
		"POST /api/graphql":                   x.graphql,
		"/":                                   x.notFound,
	} {
		handle(pattern, serve)
	}
	return mux
}

func (x *exchange) answer(status int, body any) {
	x.w.WriteHeader(status)
	json.NewEncoder(x.w).Encode(body) //nolint:errcheck // the client may have gone away
}

func (x *exchange) notFound() {
	x.answer(http.StatusNotFound, map[string]any{"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"})
}

// page answers with a page of items, and links to the next and the last one at path.
func (x *exchange) page(path string, items []any, wrap func([]any) any) {
	query := x.r.URL.Query()
	size, _ := strconv.Atoi(query.Get("per_page"))
	if size <= 0 || size > 100 {
		size = 30
	}
	number, _ := strconv.Atoi(query.Get("page"))
	number = max(number, 1)
	last := (len(items) + size - 1) / size
	link := func(page int, relation string) string {
		q := maps.Clone(query)
		q.Set("page", strconv.Itoa(page))
		return fmt.Sprintf("<%s%s?%s>; rel=%q", x.rest, path, q.Encode(), relation)
	}
	if number < last {
		x.w.Header().Set("Link", link(number+1, "next")+", "+link(last, "last"))
	}
	if x.SSO != "" {
		x.w.Header().Set("X-GitHub-SSO", x.SSO)
	}
	from := min((number-1)*size, len(items))
	x.answer(http.StatusOK, wrap(items[from:min(from+size, len(items))]))
}

func plainly(items []any) any { return items }

// owner is the account that the path names, by name or number.
func (x *exchange) owner() (string, bool) {
	names := x.World.Owners()
	i := slices.IndexFunc(names, func(name string) bool {
		return strings.EqualFold(name, x.r.PathValue("owner")) || strconv.FormatInt(x.World.OwnerID(name), 10) == x.r.PathValue("id")
	})
	if i < 0 {
		return "", false
	}
	return names[i], true
}

func (x *exchange) isUser(name string) bool {
	return name == x.World.Token().Account || slices.Contains(x.Users, name)
}

func (x *exchange) self() {
	if x.app {
		x.answer(http.StatusForbidden, map[string]any{"message": "Resource not accessible by integration", "documentation_url": "https://docs.github.com/rest"})
		return
	}
	if x.r.Header.Get("Authorization") == "" {
		x.answer(http.StatusUnauthorized, map[string]any{"message": "Requires authentication", "documentation_url": "https://docs.github.com/rest"})
		return
	}
	x.answer(http.StatusOK, x.account(x.World.Token().Account, true))
}

func (x *exchange) user() {
	name, found := x.owner()
	if !found {
		x.notFound()
		return
	}
	x.answer(http.StatusOK, x.account(name, true))
}

// list answers with repositories by their full names, as far as keep wants them.
func (x *exchange) list(path string, keep func(forgetest.Repo) bool) {
	var all []forgetest.Repo
	for _, r := range x.World.All() {
		if keep(r) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b forgetest.Repo) int { return strings.Compare(a.FullName(), b.FullName()) })
	x.page(path, x.objects(all), plainly)
}

func (x *exchange) objects(all []forgetest.Repo) []any {
	objects := []any{}
	for _, r := range all {
		objects = append(objects, x.object(r))
	}
	return objects
}

func (x *exchange) ownRepositories() {
	self := x.World.Token().Account
	all := strings.Contains(x.r.URL.Query().Get("affiliation"), "organization_member")
	x.list("/user/repos", func(r forgetest.Repo) bool { return all || r.Owner == self })
}

func (x *exchange) publicRepositories() {
	name, found := x.owner()
	if !found {
		x.notFound()
		return
	}
	x.list(fmt.Sprintf("/user/%d/repos", x.World.OwnerID(name)), func(r forgetest.Repo) bool { return r.Owner == name && !r.Private })
}

func (x *exchange) organizationRepositories() {
	name, found := x.owner()
	if !found || x.isUser(name) {
		x.notFound()
		return
	}
	x.list(fmt.Sprintf("/organizations/%d/repos", x.World.OwnerID(name)), func(r forgetest.Repo) bool { return r.Owner == name })
}

func (x *exchange) starred() {
	if x.app {
		x.notFound()
		return
	}
	path, own := x.r.URL.Path, x.r.PathValue("owner") == ""
	x.list(path, func(r forgetest.Repo) bool { return slices.Contains(x.Starred, r.ID) && (own || !r.Private) })
}

func (x *exchange) gists() {
	path, own := x.r.URL.Path, x.r.PathValue("owner") == ""
	name, found := x.owner()
	if own {
		name, found = x.World.Token().Account, true
	}
	if !found {
		x.notFound()
		return
	}
	items := []any{}
	for _, g := range x.Gists {
		if g.Owner == name && (own || !g.Secret) {
			items = append(items, x.gistObject(g))
		}
	}
	x.page(path, items, plainly)
}

func (x *exchange) gist() {
	for _, g := range x.Gists {
		if g.ID == x.r.PathValue("gist") {
			x.answer(http.StatusOK, x.gistObject(g))
			return
		}
	}
	x.notFound()
}

// byName finds a repository as GitHub does, whatever the case.
func (a *API) byName(full string) (r forgetest.Repo, moved, found bool) {
	for _, r := range a.World.All() {
		if strings.EqualFold(r.FullName(), full) {
			return r, false, true
		}
	}
	return a.World.ByName(full)
}

// named is the repository that the path names. Where it names it by a name of old, or it is blocked, the answer is given.
func (x *exchange) named() (forgetest.Repo, bool) {
	r, moved, found := x.byName(x.r.PathValue("owner") + "/" + x.r.PathValue("repo"))
	if id, err := strconv.ParseInt(x.r.PathValue("id"), 10, 64); err == nil {
		r, found = x.World.ByID(id)
		moved = false
	}
	switch {
	case !found:
		x.notFound()
	case moved:
		at := fmt.Sprintf("%s/repositories/%d", x.rest, r.ID)
		x.w.Header().Set("Location", at)
		x.answer(http.StatusMovedPermanently, map[string]any{"message": "Moved Permanently", "url": at, "documentation_url": "https://docs.github.com/rest"})
	case r.Blocked:
		x.answer(http.StatusUnavailableForLegalReasons, map[string]any{"message": "Repository access blocked"})
	default:
		return r, true
	}
	return r, false
}

func (x *exchange) repository() {
	if r, ok := x.named(); ok {
		x.answer(http.StatusOK, x.fullObject(r))
	}
}

func (x *exchange) issues() {
	r, ok := x.named()
	if !ok {
		return
	}
	if slices.Contains(x.Issueless, r.ID) {
		x.answer(http.StatusGone, map[string]any{"message": "Issues are disabled for this repo", "documentation_url": "https://docs.github.com/v3/issues/"})
		return
	}
	if m := x.kept(r.ID); m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		x.listItems(r, m)
		return
	}
	items := []any{}
	for _, i := range x.World.Issues(r.ID) {
		if x.r.URL.Query().Get("state") == "all" || !i.Closed {
			items = append(items, x.issueObject(r, i))
		}
	}
	x.page(fmt.Sprintf("/repositories/%d/issues", r.ID), items, plainly)
}

func (x *exchange) languages() {
	if r, ok := x.named(); ok {
		all := x.Languages[r.ID]
		if all == nil {
			all = map[string]int{}
		}
		x.answer(http.StatusOK, all)
	}
}

func (x *exchange) rate() {
	rate := map[string]any{"limit": 5000, "remaining": 4321, "used": 679, "reset": x.World.Now().Add(time.Hour).Unix()}
	x.answer(http.StatusOK, map[string]any{"resources": map[string]any{"core": rate, "search": rate}, "rate": rate})
}

// create makes a repository of the token's account, or of the organisation in the path.
func (x *exchange) create() {
	name, found := x.owner()
	if x.r.PathValue("owner") == "" {
		name, found = x.World.Token().Account, true
	}
	var body struct {
		Name, Description, Visibility string
		Private                       bool
	}
	if err := json.NewDecoder(x.r.Body).Decode(&body); err != nil || !found {
		x.notFound()
		return
	}
	if _, moved, there := x.byName(name + "/" + body.Name); there && !moved {
		x.refuse("name", "name already exists on this account")
		return
	}
	if len(body.Name) > 100 {
		x.refuse("name", "name is too long (maximum is 100 characters)")
		return
	}
	r := x.World.Add(forgetest.Repo{
		Owner: name, Name: body.Name, Description: body.Description, Private: body.Private || body.Visibility == "internal",
		Empty: true, Wiki: true, Created: x.World.Now(), Updated: x.World.Now(), Pushed: x.World.Now(),
	})
	if x.Metadata != nil {
		x.mu.Lock()
		x.Metadata[r.ID] = &Metadata{}
		x.mu.Unlock()
	}
	x.answer(http.StatusCreated, x.fullObject(r))
}

func (x *exchange) refuse(field, reason string) {
	x.answer(http.StatusUnprocessableEntity, map[string]any{
		"message": "Repository creation failed.", "documentation_url": "https://docs.github.com/rest",
		"errors": []any{map[string]any{"resource": "Repository", "code": "custom", "field": field, "message": reason}},
	})
}

// graphql answers the one query that is asked: contributions, in pages of 100.
func (x *exchange) graphql() {
	var body struct {
		Query     string
		Variables struct{ After, Login string }
	}
	content, err := io.ReadAll(x.r.Body)
	if err == nil {
		err = json.Unmarshal(content, &body)
	}
	if err == nil && !strings.Contains(body.Query, "repositoriesContributedTo(") {
		x.query(content)
		return
	}
	if err != nil || !strings.Contains(body.Query, "repositoriesContributedTo(first: 100,") {
		x.answer(http.StatusOK, map[string]any{"errors": []any{map[string]any{"message": "Parse error on the query"}}})
		return
	}
	if login := body.Variables.Login; login != "" && !x.isUser(login) {
		x.answer(http.StatusOK, map[string]any{
			"data":   map[string]any{"account": nil},
			"errors": []any{map[string]any{"type": "NOT_FOUND", "message": "Could not resolve to a User with the login of '" + login + "'."}},
		})
		return
	}
	from, _ := strconv.Atoi(body.Variables.After)
	to := min(from+100, len(x.Contributed))
	nodes := []any{}
	for _, id := range x.Contributed[from:to] {
		if r, ok := x.World.ByID(id); ok {
			nodes = append(nodes, x.node(r))
		}
	}
	x.answer(http.StatusOK, map[string]any{"data": map[string]any{"account": map[string]any{"repositoriesContributedTo": map[string]any{
		"totalCount": len(x.Contributed), "nodes": nodes,
		"pageInfo": map[string]any{"hasNextPage": to < len(x.Contributed), "endCursor": strconv.Itoa(to)},
	}}}})
}
