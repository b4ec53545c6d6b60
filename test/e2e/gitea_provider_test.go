//go:build e2e

package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	giteaforge "github.com/backstay/backstay/internal/forge/gitea"
	gitclient "github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// The provider itself against a real Gitea: everything that it asks for, and what a forge of our own could only pretend.
func TestGiteaProvider(t *testing.T) {
	g := startGitea(t)
	p := g.provider(t)
	t.Run("listing", func(t *testing.T) { testGiteaListing(t, g, p) })
	t.Run("credentials", func(t *testing.T) { testGiteaCredentials(t, g, p) })
	t.Run("renamed and deleted", func(t *testing.T) { testGiteaFind(t, g, p) })
	t.Run("issues", func(t *testing.T) { testGiteaIssues(t, g, p) })
	t.Run("making", func(t *testing.T) { testGiteaMake(t, g, p) })
	t.Run("mirror by push", func(t *testing.T) { testGiteaPush(t, g, p) })
	t.Run("mirror by pull", func(t *testing.T) { testGiteaPull(t, g, p) })
}

func (g *gitea) provider(t *testing.T) *giteaforge.Provider {
	t.Helper()
	p, err := giteaforge.New(giteaforge.Options{
		URL: g.url, Token: fault.Secret(g.token), Copies: true, Client: forge.ClientOptions{CAFile: g.ca},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// organisation makes one.
func (g *gitea) organisation(t *testing.T, name string) {
	t.Helper()
	g.call(t, http.MethodPost, "/orgs", map[string]any{"username": name}, nil)
}

// createFor makes a repository of an organisation, with a first commit unless it is to be empty.
func (g *gitea) createFor(t *testing.T, organisation, name string, filled, private bool) {
	t.Helper()
	body := map[string]any{"name": name, "auto_init": filled, "default_branch": "main", "private": private}
	g.call(t, http.MethodPost, "/orgs/"+organisation+"/repos", body, nil)
}

// page writes a page of a wiki.
func (g *gitea) page(t *testing.T, repository, title string) {
	t.Helper()
	content := base64.StdEncoding.EncodeToString([]byte(title))
	g.call(t, http.MethodPost, "/repos/"+repository+"/wiki/new", map[string]any{"title": title, "content_base64": content}, nil)
}

// listed collects a listing, by full name.
func listed(t *testing.T, p forge.Provider, s forge.Selection) map[string]forge.Repository {
	t.Helper()
	found := map[string]forge.Repository{}
	for r, err := range p.Repositories(t.Context(), s) {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := found[r.FullName()]; twice {
			t.Errorf("%s came twice", r.FullName())
		}
		found[r.FullName()] = r
	}
	return found
}

func testGiteaListing(t *testing.T, g *gitea, p *giteaforge.Provider) {
	for _, name := range []string{"alpha", "beta", "many"} {
		g.organisation(t, name)
	}
	g.createFor(t, "alpha", "api", true, true)
	g.createFor(t, "beta", "api", true, false)
	g.createFor(t, "alpha", "old", true, false)
	g.createFor(t, "alpha", "empty", false, false)
	g.call(t, http.MethodPatch, "/repos/alpha/old", map[string]any{"archived": true}, nil)
	g.call(t, http.MethodPost, "/repos/alpha/old/forks", map[string]any{"organization": "beta", "name": "fork"}, nil)
	g.page(t, "alpha/api", "Home")
	g.call(t, http.MethodPut, "/user/starred/beta/api", nil, nil)
	if r := listed(t, p, forge.Selection{Organization: "beta"})["beta/fork"]; r.Mark != "" {
		t.Errorf("the mark of a push just now is trusted: %q", r.Mark)
	}
	const many = 60 // pages have 50
	for i := range many {
		g.createFor(t, "many", fmt.Sprintf("r%03d", i), false, false)
	}

	all := listed(t, p, forge.Selection{Organizations: []string{"alpha", "beta", "many"}, Starred: true, Wikis: true})
	if len(all) != many+5 {
		t.Errorf("listed %d, want %d", len(all), many+5)
	}
	if n := len(listed(t, p, forge.Selection{Organization: "many"})); n != many {
		t.Errorf("listed %d of many, want %d", n, many)
	}
	if n := len(listed(t, p, forge.Selection{User: "alpha"})); n != 3 {
		t.Errorf("listed %d of alpha as if it were a user, want 3", n)
	}
	if r := all["alpha/api"]; !r.Private || r.ID == all["beta/api"].ID || r.DefaultBranch != "main" || r.HTTPURL != g.url+"/alpha/api.git" {
		t.Errorf("alpha/api is %+v", r)
	}
	if !all["alpha/old"].Archived || !all["beta/fork"].Fork || !all["alpha/empty"].Empty || all["beta/api"].Empty {
		t.Errorf("old %v, fork %v, empty %v", all["alpha/old"].Archived, all["beta/fork"].Fork, all["alpha/empty"].Empty)
	}
	for name, want := range map[string]bool{"alpha/api": true, "beta/api": false} {
		if got, err := p.HasWiki(t.Context(), all[name]); err != nil || got != want {
			t.Errorf("%s has a wiki: %v, %v", name, got, err)
		}
	}
	for _, err := range p.Repositories(t.Context(), forge.Selection{Organization: "nobody"}) {
		if !errors.Is(err, fault.ErrNotFound) {
			t.Errorf("an organisation that is not there: %v", err)
		}
	}
}

func testGiteaCredentials(t *testing.T, g *gitea, p *giteaforge.Provider) {
	if c, err := p.Inspect(t.Context()); err != nil || c.Account != owner || len(c.Missing) > 0 {
		t.Errorf("a token of all scopes: %+v, %v", c, err)
	}
	bad, err := giteaforge.New(giteaforge.Options{URL: g.url, Token: "hunter22hunter22", Client: forge.ClientOptions{CAFile: g.ca}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Inspect(t.Context()); !errors.Is(err, fault.ErrDenied) || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("a token that is none: %v", err)
	}
	// A token that may only read the user.
	var scoped struct {
		SHA1 string `json:"sha1"`
	}
	g.callWithPassword(t, "/users/"+owner+"/tokens", map[string]any{"name": "narrow", "scopes": []string{"read:user"}}, &scoped)
	narrow, err := giteaforge.New(giteaforge.Options{URL: g.url, Token: fault.Secret(scoped.SHA1), Client: forge.ClientOptions{CAFile: g.ca}})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := narrow.Inspect(t.Context()); err != nil || !slices.Equal(c.Missing, []string{"read:repository"}) {
		t.Errorf("a token that may only read the user: %+v, %v", c, err)
	}
	for _, err := range narrow.Repositories(t.Context(), forge.Selection{}) {
		if !errors.Is(err, fault.ErrDenied) || !strings.Contains(strings.Join(fault.Hints(err), " "), "read:repository") {
			t.Errorf("listing with it: %v, hints %q", err, fault.Hints(err))
		}
	}
}

// callWithPassword asks what the API answers to no token.
func (g *gitea) callWithPassword(t *testing.T, path string, body, into any) {
	t.Helper()
	token := g.token
	defer func() { g.token = token }()
	g.token = ""
	transport := g.client.Transport
	defer func() { g.client.Transport = transport }()
	g.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		r.SetBasicAuth(owner, "unused-but-long")
		return transport.RoundTrip(r)
	})
	g.call(t, http.MethodPost, path, body, into)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func testGiteaFind(t *testing.T, g *gitea, p *giteaforge.Provider) {
	g.organisation(t, "movers")
	g.createFor(t, "movers", "before", true, false)
	g.createFor(t, "movers", "gone", true, false)
	all := listed(t, p, forge.Selection{Organization: "movers"})
	g.call(t, http.MethodPatch, "/repos/movers/before", map[string]any{"name": "after"}, nil)
	g.call(t, http.MethodDelete, "/repos/movers/gone", nil, nil)
	if r, err := p.Find(t.Context(), all["movers/before"]); err != nil || r.FullName() != "movers/after" {
		t.Errorf("renamed: %s, %v", r.FullName(), err)
	}
	if _, err := p.Find(t.Context(), all["movers/gone"]); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	// The old name leads to the new one; a repository of that name is another.
	if r, err := p.Make(t.Context(), forge.NewRepository{Owner: "movers", Name: "before"}); err != nil || r.ID == all["movers/before"].ID {
		t.Errorf("made %s with ID %s, %v", r.FullName(), r.ID, err)
	}
}

func testGiteaIssues(t *testing.T, g *gitea, p *giteaforge.Provider) {
	g.create(t, "tracked")
	const many = 55
	for i := range many {
		g.call(t, http.MethodPost, "/repos/"+owner+"/tracked/issues", map[string]any{"title": fmt.Sprint("issue ", i), "closed": i%2 == 0}, nil)
	}
	n := 0
	for issue, err := range p.Issues(t.Context(), listed(t, p, forge.Selection{})[owner+"/tracked"]) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; issue.Number == 0 || issue.Updated.IsZero() {
			t.Errorf("issue %+v", issue)
		}
	}
	if n != many {
		t.Errorf("read %d issues, want %d", n, many)
	}
}

func testGiteaMake(t *testing.T, g *gitea, p *giteaforge.Provider) {
	if _, err := p.Make(t.Context(), forge.NewRepository{Owner: "fresh", Name: "x"}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("for an owner that is not there: %v", err)
	}
	for range 2 {
		if err := p.MakeOwner(t.Context(), "fresh", "limited"); err != nil {
			t.Fatal(err)
		}
		r, err := p.Make(t.Context(), forge.NewRepository{Owner: "fresh", Name: "x", Visibility: "public", DefaultBranch: "trunk"})
		if err != nil || !r.Private || r.DefaultBranch != "trunk" { // not more public than its owner
			t.Errorf("made %+v, %v", r, err)
		}
	}
	var organisation struct {
		Visibility string `json:"visibility"`
	}
	if g.call(t, http.MethodGet, "/orgs/fresh", nil, &organisation); organisation.Visibility != "limited" {
		t.Errorf("the organisation is %s", organisation.Visibility)
	}
}

// gitOptions are for the product's own git client.
func (g *gitea) gitOptions() gitclient.Options {
	return gitclient.Options{Username: owner, Password: fault.Secret(g.token), CAFile: g.ca, NetrcFile: os.DevNull}
}

// partOf makes a point of a repository, and opens it there.
func (g *gitea) partOf(t *testing.T, address, name string) (point.Reader, point.Part) {
	t.Helper()
	o := gitclient.SourceOptions{Options: g.gitOptions(), Name: strings.TrimSuffix(strings.TrimPrefix(name, "git/"), ".git"), Scratch: t.TempDir()}
	source, err := gitclient.NewSource(address, o)
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New(time.Now)
	receipt, err := protect.Backup(t.Context(), store, source, "")
	if err != nil {
		t.Fatal(err)
	}
	record, tree, err := store.Open(t.Context(), receipt.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(record.Point.Parts, func(p point.Part) bool { return p.Name == name })
	return protect.Within(tree, name), record.Point.Parts[i]
}

// refs are those that git reads.
func (g *gitea) refs(t *testing.T, address string) string {
	t.Helper()
	return gitEnv(t, g.gitEnv(), "", "ls-remote", "--heads", "--tags", address)
}

func testGiteaPush(t *testing.T, g *gitea, p *giteaforge.Provider) {
	const name = "git/git.example.com/acme/large.git"
	address, oids := g.fill(t, "large")
	work := newWorkTree(t) // a wiki on another branch than the one that Gitea shows
	write(t, work, "Home.md", "# the real one")
	git(t, work, "add", ".")
	git(t, work, "commit", "--quiet", "-m", "wiki")
	git(t, work, "branch", "-m", "master")
	wiki := g.create(t, "wiki-source")
	gitEnv(t, g.gitEnv(), work, "push", "--quiet", wiki, "master")

	m, err := forge.NewMirror(forge.MirrorOptions{To: p, Owner: "copies", MakeOwners: true, LFS: true, Git: gitclient.Options{CAFile: g.ca, NetrcFile: os.DevNull}})
	if err != nil {
		t.Fatal(err)
	}
	reader, part := g.partOf(t, address, name)
	for i := range 2 {
		report, err := m.Push(t.Context(), reader, part)
		if err != nil || report.Unchanged != (i == 1) {
			t.Fatalf("push %d: %+v, %v", i+1, report, err)
		}
	}
	copied := g.url + "/copies/large.git"
	if got, want := g.refs(t, copied), g.refs(t, address); got != want {
		t.Errorf("the copy has\n%s\nwant\n%s", got, want)
	}
	if n := g.offered(t, copied, oids); n != len(oids) {
		t.Errorf("the copy has %d LFS objects of %d", n, len(oids))
	}

	const wikiName = "git/git.example.com/acme/large.wiki.git"
	reader, part = g.partOf(t, wiki, wikiName)
	for i := range 2 {
		report, err := m.Push(t.Context(), reader, part)
		if err != nil || report.Unchanged != (i == 1) {
			t.Fatalf("push %d of the wiki: %+v, %v", i+1, report, err)
		}
	}
	var home struct {
		Content string `json:"content_base64"`
	}
	g.call(t, http.MethodGet, "/repos/copies/large/wiki/page/Home", nil, &home)
	if text, _ := base64.StdEncoding.DecodeString(home.Content); string(text) != "# the real one" {
		t.Errorf("Gitea shows the wiki %q", text)
	}
}

func testGiteaPull(t *testing.T, g *gitea, p *giteaforge.Provider) {
	g.organisation(t, "origin")
	g.createFor(t, "origin", "pulled", true, true)
	g.createFor(t, "origin", "taken", true, true)
	all := listed(t, p, forge.Selection{Organization: "origin", Wikis: true})
	m, err := forge.NewMirror(forge.MirrorOptions{To: p, Owner: "mirrors", MakeOwners: true, LFS: true, Interval: 9 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	host := p.Host()
	for range 2 {
		if _, err := m.Pull(t.Context(), host, all["origin/pulled"], owner, fault.Secret(g.token)); err != nil {
			t.Fatal(err)
		}
	}
	var there struct {
		Mirror   bool   `json:"mirror"`
		Interval string `json:"mirror_interval"`
		Private  bool   `json:"private"`
	}
	g.call(t, http.MethodGet, "/repos/mirrors/pulled", nil, &there)
	if !there.Mirror || there.Interval != "9h0m0s" || !there.Private {
		t.Errorf("the mirror is %+v", there)
	}
	if got, want := g.refs(t, g.url+"/mirrors/pulled.git"), g.refs(t, g.url+"/origin/pulled.git"); got != want {
		t.Errorf("the mirror has\n%s\nwant\n%s", got, want)
	}
	g.createFor(t, "mirrors", "taken", true, true)
	if _, err := m.Pull(t.Context(), host, all["origin/taken"], owner, fault.Secret(g.token)); !errors.Is(err, fault.ErrExists) {
		t.Errorf("a repository that is no mirror: %v", err)
	}
	missing := all["origin/taken"]
	missing.Name, missing.HTTPURL = "missing", g.url+"/origin/missing.git"
	if _, err := m.Pull(t.Context(), host, missing, owner, fault.Secret(g.token)); err == nil || strings.Contains(err.Error(), g.token) {
		t.Errorf("a source that is not there: %v", err)
	}
}
