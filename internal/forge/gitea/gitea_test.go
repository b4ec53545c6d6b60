package gitea_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitea"
)

// serve starts a forge that answers as told, and returns a provider for it.
func serve(t *testing.T, o gitea.Options, h http.Handler) *gitea.Provider {
	t.Helper()
	web := httptest.NewServer(h)
	t.Cleanup(web.Close)
	clock := forgetest.NewClock()
	o.URL, o.Token, o.Client = web.URL+"/", forgetest.Token, forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep}
	p, err := gitea.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// routes answers by method and path. What is not there is not found.
type routes map[string]func(w http.ResponseWriter, r *http.Request)

func (s routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := s[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/api/v1")]; f != nil {
		f(w, r)
		return
	}
	answer(w, http.StatusNotFound, map[string]string{"message": "not found"})
}

func says(status int, document any) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { answer(w, status, document) }
}

func repo(id int64, owner, name string, more ...any) map[string]any {
	d := map[string]any{"id": id, "owner": map[string]any{"login": owner}, "name": name, "has_wiki": true}
	for i := 0; i < len(more); i += 2 {
		d[fmt.Sprint(more[i])] = more[i+1]
	}
	return d
}

func names(t *testing.T, p *gitea.Provider, s forge.Selection) ([]string, error) {
	t.Helper()
	var all []string
	for r, err := range p.Repositories(t.Context(), s) {
		if err != nil {
			return all, err
		}
		all = append(all, r.FullName())
	}
	return all, nil
}

func TestNewRefusesWhatIsNoAddress(t *testing.T) {
	for _, address := range []string{"://", "ftp://git.example.com", "https://token@git.example.com", "https://git.example.com?token=hunter22"} {
		if _, err := gitea.New(gitea.Options{URL: address}); !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for address, want := range map[string]string{
		"": "gitea.com", "https://Git.Example.com/": "git.example.com", "http://localhost:3000/api/v1": "localhost_3000",
		"git.example.com": "git.example.com", "https://git.example.com:443": "git.example.com", "https://[::1]:3000/git": "__1_3000",
	} {
		p, err := gitea.New(gitea.Options{URL: address})
		if err != nil || p.Host() != want {
			t.Errorf("%q is on %v, %v; want %s", address, p.Host(), err, want)
		}
	}
}

// The count of a listing holds what the account may not see; pages are short then.
func TestAListingMayHoldLessThanItsCount(t *testing.T) {
	p := serve(t, gitea.Options{}, routes{"GET /orgs/acme/repos": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Total-Count", "120")
		switch r.FormValue("page") {
		case "":
			w.Header().Set("Link", `<https://git.internal/api/v1/orgs/acme/repos?page=2>; rel="next"`)
			answer(w, 200, []any{repo(1, "acme", "a")})
		case "2":
			w.Header().Set("Link", `<https://git.internal/api/v1/orgs/acme/repos?page=3>; rel="next"`)
			answer(w, 200, []any{})
		default:
			w.Header().Set("Link", `<https://git.internal/api/v1/orgs/acme/repos?page=1>; rel="first"`)
			answer(w, 200, []any{repo(2, "acme", "b")})
		}
	}})
	if all, err := names(t, p, forge.Selection{Organization: "acme"}); err != nil || !slices.Equal(all, []string{"acme/a", "acme/b"}) {
		t.Errorf("listed %q, %v", all, err)
	}
}

// A repository that is deleted while pages are read shifts the others: one would go unseen.
func TestAListingThatChangesIsReadAgain(t *testing.T) {
	reading, always := 0, false
	p := serve(t, gitea.Options{}, routes{"GET /orgs/acme/repos": func(w http.ResponseWriter, r *http.Request) {
		first := r.FormValue("page") == ""
		if first {
			reading++
		}
		if reading == 1 || always {
			if first {
				w.Header().Set("X-Total-Count", "4")
				w.Header().Set("Link", `<x?page=2>; rel="next"`)
				answer(w, 200, []any{repo(1, "acme", "a"), repo(2, "acme", "b")})
				return
			}
			w.Header().Set("X-Total-Count", "3") // a was deleted, so c is on the first page now
			w.Header().Set("Link", `<x?page=1>; rel="first"`)
			answer(w, 200, []any{repo(4, "acme", "d")})
			return
		}
		w.Header().Set("X-Total-Count", "3")
		answer(w, 200, []any{repo(2, "acme", "b"), repo(3, "acme", "c"), repo(4, "acme", "d")})
	}})
	all, err := names(t, p, forge.Selection{Organization: "acme"})
	if err != nil || !slices.Contains(all, "acme/c") || len(all) != 4 {
		t.Errorf("listed %q, %v", all, err)
	}
	always = true
	if _, err := names(t, p, forge.Selection{Organization: "acme"}); !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("a listing that never stands still: %v", err)
	}
}

func TestOwnersMayBeOrganisationsOrUsers(t *testing.T) {
	p := serve(t, gitea.Options{}, routes{
		"GET /orgs/acme/repos": says(200, []any{repo(1, "acme", "a")}),
		"GET /users/ann/repos": says(200, []any{repo(2, "ann", "b")}),
		"GET /user/repos":      says(200, []any{repo(2, "ann", "b")}),
	})
	all, err := names(t, p, forge.Selection{Organizations: []string{"acme", "ann"}})
	if err != nil || !slices.Equal(all, []string{"ann/b", "acme/a"}) {
		t.Errorf("listed %q, %v", all, err)
	}
	if _, err := names(t, p, forge.Selection{Organization: "nobody"}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}

func TestWhatTheForgeHasNotIsSaid(t *testing.T) {
	mine := routes{"GET /user/repos": says(200, []any{repo(1, "acme", "a")})}
	for _, test := range []struct {
		gogs bool
		s    forge.Selection
	}{{false, forge.Selection{Gists: true}}, {false, forge.Selection{Contributed: true}}, {true, forge.Selection{Starred: true}}} {
		all, err := names(t, serve(t, gitea.Options{Gogs: test.gogs}, mine), test.s)
		if !errors.Is(err, fault.ErrUnsupported) || len(all) != 1 {
			t.Errorf("%+v: %q, %v", test.s, all, err)
		}
	}
}

func TestMarksOfWhatTheTimeOfUpdateDoesNotSee(t *testing.T) {
	document := repo(1, "acme", "a", "updated_at", "2024-01-01T00:00:00Z", "release_counter", 1, "open_pr_counter", 2)
	p := serve(t, gitea.Options{}, routes{"GET /user/repos": func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, []any{document}) }})
	mark := func() (mark string) {
		for r, err := range p.Repositories(t.Context(), forge.Selection{}) {
			if err != nil {
				t.Fatal(err)
			}
			mark = r.Mark
		}
		return mark
	}
	before := mark()
	for _, change := range []struct {
		what  string
		value any
	}{{"release_counter", 2}, {"open_pr_counter", 3}, {"mirror", true}, {"mirror_updated", "2024-01-02T00:00:00Z"}} {
		document[change.what] = change.value
		if after := mark(); after == before {
			t.Errorf("%s: the mark is still %q", change.what, after)
		} else {
			before = after
		}
	}
	document["updated_at"], document["mirror"] = time.Now(), false
	if got := mark(); got != "" {
		t.Errorf("the mark of a push just now is %q", got)
	}
}

func TestWikisThatNobodyWrote(t *testing.T) {
	p := serve(t, gitea.Options{}, routes{
		"GET /user/repos": says(200, []any{
			repo(1, "acme", "a"), repo(2, "acme", "off", "has_wiki", false), repo(3, "acme", "away", "external_wiki", map[string]string{"external_wiki_url": "https://x"}),
		}),
		"GET /acme/a.wiki.git/HEAD": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ref: refs/heads/main\n") },
	})
	wikis := map[string]string{}
	for r, err := range p.Repositories(t.Context(), forge.Selection{Wikis: true}) {
		if err != nil {
			t.Fatal(err)
		}
		wikis[r.Name] = r.WikiHTTPURL
	}
	if !strings.HasSuffix(wikis["a"], "/acme/a.wiki.git") || wikis["off"] != "" || wikis["away"] != "" {
		t.Errorf("wikis are at %q", wikis)
	}
	for name, want := range map[string]bool{"a": true, "b": false} {
		if got, err := p.HasWiki(t.Context(), forge.Repository{Owner: "acme", Name: name}); got != want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// made is a forge that keeps what is made.
func made(bodies *[]string) routes {
	r := routes{"GET /user": says(200, map[string]any{"login": "acme"})}
	r["POST /user/repos"] = func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		*bodies = append(*bodies, string(b))
		r["GET /repos/acme/api"] = says(200, repo(7, "acme", "api"))
		answer(w, 201, repo(7, "acme", "api"))
	}
	return r
}

func TestWhatAnOwnerHidesIsPrivate(t *testing.T) {
	for visibility, want := range map[string]bool{"public": false, "": false, "limited": true, "private": true} {
		owner := map[string]any{"login": "acme", "visibility": visibility}
		p := serve(t, gitea.Options{}, routes{"GET /repositories/1": says(200, repo(1, "acme", "api", "private", false, "owner", owner))})
		r, err := p.Find(t.Context(), forge.Repository{ID: "1"})
		if err != nil || r.Private != want {
			t.Errorf("owner %q: private %v, %v", visibility, r.Private, err)
		}
	}
}

func TestMakeMakesOnce(t *testing.T) {
	var bodies []string
	p := serve(t, gitea.Options{}, made(&bodies))
	for range 2 {
		if r, err := p.Make(t.Context(), forge.NewRepository{Name: "api", Description: "d", DefaultBranch: "trunk"}); err != nil || r.ID != "7" {
			t.Fatalf("made %+v, %v", r, err)
		}
	}
	if len(bodies) != 1 || !strings.Contains(bodies[0], `"private":true`) || !strings.Contains(bodies[0], `"default_branch":"trunk"`) {
		t.Errorf("asked for %q", bodies)
	}
	if _, err := p.Make(t.Context(), forge.NewRepository{Name: "api", Visibility: "internal"}); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("internal: %v", err)
	}
}

func TestMakeTakesNoOtherRepository(t *testing.T) {
	var bodies []string
	r := made(&bodies)
	r["GET /repos/acme/old"] = says(200, repo(7, "acme", "renamed"))
	r["GET /repos/acme/pulled"] = says(200, repo(8, "acme", "pulled", "mirror", true))
	p := serve(t, gitea.Options{}, r)
	if got, err := p.Make(t.Context(), forge.NewRepository{Name: "old"}); err == nil || len(bodies) != 1 {
		t.Errorf("a name that leads to another repository: %+v, %v; %d made", got, err, len(bodies))
	}
	if _, err := p.Make(t.Context(), forge.NewRepository{Name: "pulled"}); !errors.Is(err, fault.ErrExists) {
		t.Errorf("a pull mirror: %v", err)
	}
}

func TestPullMirror(t *testing.T) {
	const secret = "source-token-9f8e7d"
	var body map[string]any
	r := routes{"GET /user": says(200, map[string]any{"login": "acme"})}
	r["POST /repos/migrate"] = func(w http.ResponseWriter, q *http.Request) {
		if err := json.NewDecoder(q.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		answer(w, 422, map[string]string{"message": "could not clone with " + secret})
	}
	p := serve(t, gitea.Options{}, r)
	m := forge.PullMirror{
		NewRepository: forge.NewRepository{Name: "api"}, From: "https://github.com/acme/api.git", Username: "x", Password: secret, Interval: 90 * time.Minute, LFS: true,
	}
	err := p.PullMirror(t.Context(), m)
	if !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), secret) {
		t.Errorf("a server that repeats the source's token: %v", err)
	}
	if body["auth_password"] != secret || body["mirror_interval"] != "1h30m0s" || body["lfs"] != true || body["mirror"] != true || body["repo_owner"] != "acme" {
		t.Errorf("asked for %v", body)
	}
	for _, test := range []struct {
		there map[string]any
		want  error
	}{
		{repo(1, "acme", "api", "private", true, "mirror", true, "original_url", "https://GitHub.com/acme/api"), nil},
		{repo(1, "acme", "api", "mirror", true, "original_url", "https://github.com/acme/api"), fault.ErrRefused}, // everybody sees it
		{repo(1, "acme", "api", "mirror", true, "original_url", "https://github.com/umbrella/api"), fault.ErrExists},
		{repo(1, "acme", "api"), fault.ErrExists},
		{repo(1, "acme", "api", "mirror", true, "empty", true, "original_url", m.From, "mirror_updated", "0001-01-01T00:00:00Z"), fault.ErrUnavailable},
	} {
		r["GET /repos/acme/api"] = says(200, test.there)
		if err := p.PullMirror(t.Context(), m); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%v: %v, want %v", test.there, err, test.want)
		}
	}
}

func TestGitCredentials(t *testing.T) {
	p := serve(t, gitea.Options{}, routes{"GET /user": says(200, map[string]any{"login": "ann"})})
	if name, password, err := p.GitCredentials(t.Context()); name != "ann" || password != forgetest.Token || err != nil {
		t.Errorf("got %s, %v", name, err)
	}
	shy := serve(t, gitea.Options{}, routes{"GET /user": says(403, map[string]string{"message": "required=[read:user], token scope=read:repository"})})
	if name, password, err := shy.GitCredentials(t.Context()); name != "" || password != forgetest.Token || err != nil {
		t.Errorf("of a token that may not say whose it is: %s, %v", name, err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`[{"id":1,"owner":{"login":"a"},"name":"b","updated_at":"2024-01-01T00:00:00Z","size":7}]`))
	f.Add([]byte(`[{"id":1,"owner":{"login":".."},"name":"b/c","number":3},{"id":-1},null]`))
	f.Add([]byte(`{"message":"x","errors":[["y"]]}`))
	f.Add([]byte(`[{"id":1,"owner":null,"name":"b","external_wiki":7}]`))
	var body []byte
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	f.Cleanup(web.Close)
	clock := forgetest.NewClock()
	p, err := gitea.New(gitea.Options{URL: web.URL, Client: forge.ClientOptions{Clock: clock.Now, Sleep: clock.Sleep}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		body = b
		for r, err := range p.Repositories(t.Context(), forge.Selection{Organization: "a", Wikis: true}) {
			if err == nil && (r.ID == "" || strings.Count(r.FullName(), "/") != 1 || strings.Contains("/"+r.FullName()+"/", "/../")) {
				t.Errorf("took %+v", r)
			}
		}
		for issue, err := range p.Issues(t.Context(), forge.Repository{Owner: "a", Name: "b"}) {
			if err == nil && issue.Number <= 0 {
				t.Errorf("took %+v", issue)
			}
		}
	})
}

func TestNobodyHasNoTokenToWarnOf(t *testing.T) {
	p, err := gitea.New(gitea.Options{URL: "http://127.0.0.1:1"}) // where nothing is to be asked
	if err != nil {
		t.Fatal(err)
	}
	if c, err := p.Inspect(t.Context()); err != nil || len(c.Missing) > 0 {
		t.Errorf("got %+v, %v", c, err)
	}
}
