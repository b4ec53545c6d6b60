package github_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

func TestConformance(t *testing.T) {
	forgetest.Run(t, forgetest.Dialect{
		Handler: func(w *forgetest.World) http.Handler { return described(t, &githubtest.API{World: w}) },
		New: func(o forge.ClientOptions) (forge.Provider, error) {
			return github.New(github.Options{URL: o.Base, Token: forgetest.Token, Client: o})
		},
		Tells: "private archived fork wiki stars description branch",
		ETags: true, Scope: "repo", Expiry: true,
	})
}

// served is a GitHub, and the requests that it got.
type served struct {
	*githubtest.API
	*forgetest.Server
	clock *forgetest.Clock
}

func serve(t *testing.T, api *githubtest.API) *served {
	t.Helper()
	clock := forgetest.NewClock()
	api.World = forgetest.NewWorld(clock.Now)
	return &served{api, forgetest.NewServer(t, described(t, api), false, clock.Now), clock}
}

// connect makes a provider for it, with the world's token unless o has other credentials.
func (s *served) connect(t *testing.T, o github.Options) *github.Provider {
	t.Helper()
	if o.App == nil && o.Password == "" {
		o.Token = forgetest.Token
	}
	o.URL = s.Server.URL
	o.Client = forge.ClientOptions{Clock: s.clock.Now, Sleep: s.clock.Sleep}
	p, err := github.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// list collects a listing as "owner/name", with its class.
func list(ctx context.Context, p *github.Provider, s forge.Selection) (names []string, all []forge.Repository, err error) {
	for r, err := range p.Repositories(ctx, s) {
		if err != nil {
			return names, all, err
		}
		name := r.FullName()
		if r.Class != forge.Owned {
			name += " " + string(r.Class)
		}
		names, all = append(names, name), append(all, r)
	}
	return names, all, nil
}

func wantClass(t *testing.T, err, class error, says string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %v that says %q", err, class, says)
	}
}

// roundTrip answers requests without a network.
type roundTrip func(r *http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func TestAddresses(t *testing.T) {
	for _, test := range []struct{ url, host, rest, graphql string }{
		{"", "github.com", "https://api.github.com", "https://api.github.com/graphql"},
		{"https://github.com/", "github.com", "https://api.github.com", "https://api.github.com/graphql"},
		{"github.com", "github.com", "https://api.github.com", "https://api.github.com/graphql"},
		{"https://www.github.com", "github.com", "https://api.github.com", "https://api.github.com/graphql"},
		{"https://api.github.com", "github.com", "https://api.github.com", "https://api.github.com/graphql"},
		{"https://acme.ghe.com", "acme.ghe.com", "https://api.acme.ghe.com", "https://api.acme.ghe.com/graphql"},
		{"https://GitHub.example.com", "github.example.com", "https://github.example.com/api/v3", "https://github.example.com/api/graphql"},
		{"https://github.example.com/api/v3/", "github.example.com", "https://github.example.com/api/v3", "https://github.example.com/api/graphql"},
		{"http://10.0.0.1:8080", "10.0.0.1_8080", "http://10.0.0.1:8080/api/v3", "http://10.0.0.1:8080/api/graphql"},
		{"https://api.example.com", "api.example.com", "https://api.example.com/api/v3", "https://api.example.com/api/graphql"},
	} {
		var asked []string
		answer := func(r *http.Request) *http.Response {
			asked = append(asked, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path)
			w := httptest.NewRecorder()
			switch {
			case r.Method == http.MethodPost:
				w.WriteString(`{"data":{"account":{"repositoriesContributedTo":{"totalCount":0,"pageInfo":{},"nodes":[]}}}}`)
			case strings.HasSuffix(r.URL.Path, "/user"):
				w.WriteString(`{"login":"tester","type":"User"}`)
			default:
				w.WriteString(`[]`)
			}
			return w.Result()
		}
		p, err := github.New(github.Options{URL: test.url, Token: "t", Client: forge.ClientOptions{Transport: roundTrip(answer)}})
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		if _, _, err := list(t.Context(), p, forge.Selection{User: "tester", Contributed: true}); err != nil {
			t.Errorf("%s: %v", test.url, err)
		}
		if want := []string{test.rest + "/user", test.rest + "/user/repos", test.graphql}; !slices.Equal(asked, want) || p.Host() != test.host {
			t.Errorf("%s: host %s, asked %q", test.url, p.Host(), asked)
		}
	}
	for _, hostile := range []string{"ftp://github.com", "https://user:hunter22@github.com", "https://", "https://git hub.com", "::"} {
		_, err := github.New(github.Options{URL: hostile})
		if !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s: %v", hostile, err)
		}
	}
}

// populate makes accounts of all sorts: the token's own, an organisation, another user.
func populate(s *served) map[string]int64 {
	ids := map[string]int64{}
	for _, r := range []forgetest.Repo{
		{Owner: "tester", Name: "dotfiles"},
		{Owner: "tester", Name: "secrets", Private: true},
		{Owner: "acme", Name: "api", Private: true, Wiki: true},
		{Owner: "acme", Name: "dotfiles"},
		{Owner: "umbrella", Name: "virus", Private: true},
		{Owner: "octocat", Name: "hello"},
		{Owner: "octocat", Name: "hidden", Private: true},
	} {
		ids[r.Owner+"/"+r.Name] = s.World.Add(r).ID
	}
	s.Users = []string{"octocat"}
	s.Gists = []githubtest.Gist{
		{ID: "aa5a315d61ae9438b18d", Owner: "tester"},
		{ID: "1234567", Owner: "tester", Secret: true},
		{ID: "0ff1ce", Owner: "octocat"},
		{ID: "5ec2e7", Owner: "octocat", Secret: true},
	}
	s.Starred = []int64{ids["octocat/hello"], ids["tester/dotfiles"], ids["umbrella/virus"]}
	s.Contributed = []int64{ids["octocat/hello"], ids["acme/api"]}
	return ids
}

func TestSelection(t *testing.T) {
	s := serve(t, &githubtest.API{})
	populate(s)
	own := []string{"tester/dotfiles", "tester/secrets"}
	acme := []string{"acme/api", "acme/dotfiles"}
	everything := []string{
		"acme/api", "acme/dotfiles", "octocat/hello", "octocat/hidden", "tester/dotfiles", "tester/secrets", "umbrella/virus",
	}
	for _, test := range []struct {
		name string
		s    forge.Selection
		want []string
	}{
		{"all that the token sees", forge.Selection{}, everything},
		{"own account, by name", forge.Selection{User: "Tester"}, own},
		{"another user's", forge.Selection{User: "octocat"}, []string{"octocat/hello"}},
		{"an organisation given as user", forge.Selection{User: "acme"}, acme},
		{"organisation", forge.Selection{Organization: "acme"}, acme},
		{"organisations beside a user", forge.Selection{User: "tester", Organizations: []string{"acme", "umbrella", "acme"}}, append(append(slices.Clone(own), acme...), "umbrella/virus")},
		{"starred, not twice", forge.Selection{User: "tester", Starred: true}, append(slices.Clone(own), "octocat/hello starred", "umbrella/virus starred")},
		{"another user's stars", forge.Selection{User: "octocat", Starred: true}, []string{"octocat/hello", "tester/dotfiles starred"}},
		{"contributed", forge.Selection{User: "tester", Contributed: true}, append(slices.Clone(own), "octocat/hello contributed", "acme/api contributed")},
		{"contributed and starred", forge.Selection{Organization: "acme", Contributed: true, Starred: true}, append(slices.Clone(acme), "octocat/hello contributed", "tester/dotfiles starred", "umbrella/virus starred")},
		{"gists, secret ones too", forge.Selection{User: "tester", Gists: true}, append(slices.Clone(own), "tester/aa5a315d61ae9438b18d gist", "tester/1234567 gist")},
		{"another user's gists", forge.Selection{User: "octocat", Gists: true}, []string{"octocat/hello", "octocat/0ff1ce gist"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := list(t.Context(), s.connect(t, github.Options{}), test.s)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
	for _, missing := range []forge.Selection{{User: "nobody"}, {Organization: "nobody"}, {User: "tester", Organizations: []string{"octocat"}}} {
		_, _, err := list(t.Context(), s.connect(t, github.Options{}), missing)
		wantClass(t, err, fault.ErrNotFound, "")
	}
}

func TestWithoutCredentials(t *testing.T) {
	s := serve(t, &githubtest.API{})
	populate(s)
	p, err := github.New(github.Options{URL: s.Server.URL})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := list(t.Context(), p, forge.Selection{User: "tester"})
	if err != nil || !slices.Equal(got, []string{"tester/dotfiles"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, s := range []forge.Selection{{}, {Organization: "acme", Starred: true}} {
		_, _, err := list(t.Context(), p, s)
		wantClass(t, err, fault.ErrInvalid, "no credentials")
	}
	if username, password, err := p.GitCredentials(t.Context()); username != "" || password != "" || err != nil {
		t.Errorf("credentials out of nothing: %q, %v", username, err)
	}
	c, err := p.Inspect(t.Context())
	if err != nil || c.Remaining != 4321 || c.Limit != 5000 || len(c.Missing) > 0 {
		t.Errorf("got %+v, %v", c, err)
	}
}

// TestPassword has the token where gickup takes a password.
func TestPassword(t *testing.T) {
	s := serve(t, &githubtest.API{})
	populate(s)
	p := s.connect(t, github.Options{Username: "tester", Password: forgetest.Token})
	if got, _, err := list(t.Context(), p, forge.Selection{User: "tester"}); err != nil || len(got) != 2 {
		t.Errorf("got %q, %v", got, err)
	}
	username, password, err := p.GitCredentials(t.Context())
	if username != "tester" || password.Reveal() != forgetest.Token || err != nil {
		t.Errorf("git gets %q, %v", username, err)
	}
}

func TestRepositoryOfTheListing(t *testing.T) {
	s := serve(t, &githubtest.API{})
	pushed := s.clock.Now().Add(-59 * time.Second)
	added := s.World.Add(forgetest.Repo{
		Owner: "acme", Name: "api", Description: "the <api>", DefaultBranch: "trunk", Private: true, Fork: true, Archived: true, Wiki: true,
		Stars: 7, Language: "Go", Size: 5 << 20, Pushed: pushed,
	})
	s.World.Add(forgetest.Repo{Owner: "acme", Name: "bare", Empty: true})
	_, all, err := list(t.Context(), s.connect(t, github.Options{}), forge.Selection{Organization: "acme", Wikis: true})
	if err != nil || len(all) != 2 {
		t.Fatalf("listed %d: %v", len(all), err)
	}
	at, host := s.Server.URL+"/acme/api", "git@127.0.0.1:acme/api"
	want := forge.Repository{
		ID: fmt.Sprint(added.ID), Owner: "acme", Name: "api",
		HTTPURL: at + ".git", SSHURL: host + ".git", WikiHTTPURL: at + ".wiki.git", WikiSSHURL: host + ".wiki.git", WebURL: at,
		Description: "the <api>", DefaultBranch: "trunk", Private: true, Fork: true, Archived: true,
		Stars: 7, Languages: []string{"Go"}, Size: 5 << 20, Active: pushed,
	}
	if got := fmt.Sprintf("%+v", withoutRaw(all[0])); got != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %s\nwant %+v", got, want)
	}
	if !strings.Contains(string(all[0].Raw), `"subscribers_url"`) {
		t.Error("the raw answer is not whole")
	}
	// Nobody ever pushed to it: GitHub's pushed_at is null.
	if bare := all[1]; bare.Mark != "" || bare.Active.IsZero() || bare.WikiHTTPURL != "" {
		t.Errorf("an empty repository is %+v", withoutRaw(bare))
	}
	s.clock.Advance(time.Second)
	if _, all, err = list(t.Context(), s.connect(t, github.Options{}), forge.Selection{Organization: "acme"}); err != nil {
		t.Fatal(err)
	}
	if all[0].Mark != pushed.Format(time.RFC3339) || all[0].WikiHTTPURL != "" {
		t.Errorf("a minute after the push: %+v", withoutRaw(all[0]))
	}
}

func withoutRaw(r forge.Repository) forge.Repository {
	r.Raw = nil
	return r
}

func TestGist(t *testing.T) {
	s := serve(t, &githubtest.API{})
	populate(s)
	p := s.connect(t, github.Options{})
	_, all, err := list(t.Context(), p, forge.Selection{User: "tester", Gists: true})
	if err != nil {
		t.Fatal(err)
	}
	got := all[len(all)-1]
	want := forge.Repository{
		ID: "gist:1234567", Owner: "tester", Name: "1234567", Class: forge.Gist, Private: true, Description: "a gist",
		HTTPURL: s.Server.URL + "/gist/1234567.git", SSHURL: "git@127.0.0.1:gist/1234567.git", WebURL: s.Server.URL + "/gist/1234567",
		Active: time.Date(2021, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if fmt.Sprintf("%+v", withoutRaw(got)) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", withoutRaw(got), want)
	}
	if !strings.Contains(string(got.Raw), `"filename":"a.txt"`) {
		t.Error("the names of its files are lost")
	}
	found, err := p.Find(t.Context(), got)
	if err != nil || found.ID != got.ID || found.Class != forge.Gist {
		t.Errorf("found %+v, %v", withoutRaw(found), err)
	}
	got.ID = ""
	if found, err = p.Find(t.Context(), got); err != nil || found.ID != "gist:1234567" {
		t.Errorf("found by its name: %+v, %v", withoutRaw(found), err)
	}
	got.ID = "gist:0000"
	_, err = p.Find(t.Context(), got)
	wantClass(t, err, fault.ErrNotFound, "")
}

// TestRequestsPerListing is the promise of at most one request for a hundred repositories.
func TestRequestsPerListing(t *testing.T) {
	s := serve(t, &githubtest.API{})
	s.World.Grow("acme", 1000)
	got, _, err := list(t.Context(), s.connect(t, github.Options{}), forge.Selection{Organization: "acme", Wikis: true})
	if err != nil || len(got) != 1000 {
		t.Fatalf("listed %d: %v", len(got), err)
	}
	if n := len(s.Requests()); n != 10 {
		t.Errorf("%d requests for 1000 repositories", n)
	}
}

// TestShiftedPages has a repository appear while the listing is read, so that one of the first page comes again on the second.
func TestShiftedPages(t *testing.T) {
	s := serve(t, &githubtest.API{})
	s.World.Grow("acme", 150)
	seen := map[string]bool{}
	for r, err := range s.connect(t, github.Options{}).Repositories(t.Context(), forge.Selection{Organization: "acme"}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[r.Name] {
			t.Errorf("%s came twice", r.Name)
		}
		if seen[r.Name] = true; len(seen) == 1 {
			s.World.Add(forgetest.Repo{Owner: "acme", Name: "a-new-one"})
		}
	}
	if len(seen) < 150 {
		t.Errorf("listed %d", len(seen))
	}
}

func TestContributionsOfManyPages(t *testing.T) {
	s := serve(t, &githubtest.API{})
	s.World.AddOwner("empty")
	for _, r := range s.World.Grow("acme", 250) {
		s.Contributed = append(s.Contributed, r.ID)
	}
	selection := forge.Selection{Organization: "empty", Contributed: true}
	got, all, err := list(t.Context(), s.connect(t, github.Options{}), selection)
	if err != nil || len(got) != 250 {
		t.Fatalf("listed %d: %v", len(got), err)
	}
	if r := all[2]; r.Mark == "" || r.DefaultBranch != "main" || r.Languages != nil || !r.Fork || r.WikiHTTPURL != "" {
		t.Errorf("got %+v", withoutRaw(r))
	}
	if r := all[4]; !r.Empty || r.DefaultBranch != "" {
		t.Errorf("got %+v", withoutRaw(r))
	}
	s.Contributed[249] = 1 // GitHub counts it, and does not give it
	_, _, err = list(t.Context(), s.connect(t, github.Options{}), selection)
	wantClass(t, err, fault.ErrIncomplete, "total")
	_, _, err = list(t.Context(), s.connect(t, github.Options{}), forge.Selection{User: "acme", Contributed: true})
	wantClass(t, err, fault.ErrNotFound, "acme")
}

func TestSingleSignOn(t *testing.T) {
	s := serve(t, &githubtest.API{SSO: "partial-results; organizations=21955855,20582480"})
	populate(s)
	_, _, err := list(t.Context(), s.connect(t, github.Options{}), forge.Selection{})
	wantClass(t, err, fault.ErrDenied, "21955855,20582480")
	if hints := fmt.Sprint(fault.Hints(err)); !strings.Contains(hints, "authorise the token") {
		t.Errorf("hints %s", hints)
	}
}

func TestLanguages(t *testing.T) {
	s := serve(t, &githubtest.API{})
	ids := populate(s)
	s.API.Languages = map[int64]map[string]int{ids["acme/api"]: {"C": 5, "Go": 900, "Shell": 5}}
	s.World.Change(ids["acme/dotfiles"], func(r *forgetest.Repo) { r.Blocked, r.Language = true, "Vim Script" })
	p := s.connect(t, github.Options{})
	_, all, err := list(t.Context(), p, forge.Selection{Organization: "acme", Languages: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := all[0].Languages; !slices.Equal(got, []string{"Go", "C", "Shell"}) {
		t.Errorf("got %q", got)
	}
	if got := all[1].Languages; !slices.Equal(got, []string{"Vim Script"}) {
		t.Errorf("of a blocked repository: %q", got)
	}
	s.Break(forgetest.Break{
		Match: func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/languages") }, Fault: forgetest.Answer(500, "{}"),
	})
	_, _, err = list(t.Context(), p, forge.Selection{Organization: "acme", Languages: true})
	wantClass(t, err, fault.ErrUnavailable, "acme/api")
}

func TestInspectScopes(t *testing.T) {
	s := serve(t, &githubtest.API{})
	populate(s)
	for _, test := range []struct {
		name   string
		o      github.Options
		scopes []string
		want   []string
	}{
		{"none for all", github.Options{}, nil, []string{"repo"}},
		{"all", github.Options{Selection: forge.Selection{Gists: true}, Copies: true}, []string{"gist", "repo", "workflow"}, nil},
		{"copies", github.Options{Selection: forge.Selection{User: "octocat"}, Copies: true}, []string{"repo"}, []string{"workflow"}},
		{"gists", github.Options{Selection: forge.Selection{User: "Tester", Gists: true}}, []string{"repo"}, []string{"gist"}},
		{"public only, of another user", github.Options{Selection: forge.Selection{User: "octocat", Gists: true, Starred: true}}, nil, nil},
		{"organisations", github.Options{Selection: forge.Selection{User: "octocat", Organizations: []string{"acme"}}}, []string{"public_repo"}, []string{"repo"}},
	} {
		s.World.SetToken(forgetest.Credentials{Account: "tester", Scopes: test.scopes})
		c, err := s.connect(t, test.o).Inspect(t.Context())
		if err != nil || !slices.Equal(c.Missing, test.want) || c.Account != "tester" || c.Remaining != 4321 || c.Limit != 5000 || c.Reset.IsZero() {
			t.Errorf("%s: got %+v, %v; want %q missing", test.name, c, err, test.want)
		}
	}
	s.FineGrained = true
	if c, err := s.connect(t, github.Options{}).Inspect(t.Context()); err != nil || c.Missing != nil {
		t.Errorf("a token that does not tell its scopes: %+v, %v", c, err)
	}
}

func TestFindByName(t *testing.T) {
	s := serve(t, &githubtest.API{})
	ids := populate(s)
	s.World.Rename(ids["acme/api"], "api-2")
	p := s.connect(t, github.Options{})
	found, err := p.Find(t.Context(), forge.Repository{Owner: "acme", Name: "api", Class: forge.Starred})
	if err != nil || found.FullName() != "acme/api-2" || found.Class != forge.Starred {
		t.Errorf("got %+v, %v", withoutRaw(found), err)
	}
	before := len(s.Requests())
	for _, hostile := range []forge.Repository{
		{ID: "../../user", Owner: "a"}, {ID: "gist:../user", Owner: "a"}, {ID: "gist:", Owner: "a"}, {Owner: "..", Name: ".."}, {Owner: "a/b", Name: "c?d"},
	} {
		_, err := p.Find(t.Context(), hostile)
		wantClass(t, err, fault.ErrInvalid, "")
		for _, err := range p.Issues(t.Context(), forge.Repository{Owner: hostile.Owner, Name: hostile.Name}) {
			wantClass(t, err, fault.ErrInvalid, "")
		}
	}
	for _, name := range []string{"..", "a/b", "a?b", "a b"} {
		_, _, err := list(t.Context(), p, forge.Selection{User: name})
		wantClass(t, err, fault.ErrInvalid, "such a name")
		_, _, err = list(t.Context(), p, forge.Selection{Organizations: []string{name}})
		wantClass(t, err, fault.ErrInvalid, "such a name")
		_, err = p.Make(t.Context(), forge.NewRepository{Owner: name, Name: "a"})
		wantClass(t, err, fault.ErrInvalid, "such a name")
		wantClass(t, p.MakeOwner(t.Context(), name, ""), fault.ErrInvalid, "such a name")
	}
	if n := len(s.Requests()) - before; n > 0 {
		t.Errorf("%d requests for names that there are none of", n)
	}
}

func TestIssues(t *testing.T) {
	s := serve(t, &githubtest.API{})
	ids := populate(s)
	s.World.AddIssues(ids["acme/api"], 3)
	s.Issueless = []int64{ids["acme/dotfiles"]}
	p := s.connect(t, github.Options{})
	numbers := func(name string) (numbers []int64, err error) {
		for issue, err := range p.Issues(t.Context(), forge.Repository{Owner: "acme", Name: name}) {
			if err != nil {
				return numbers, err
			}
			if issue.Updated.IsZero() {
				t.Errorf("issue %d has no time", issue.Number)
			}
			numbers = append(numbers, issue.Number)
		}
		return numbers, nil
	}
	if got, err := numbers("api"); err != nil || !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := numbers("dotfiles"); err != nil || len(got) > 0 {
		t.Errorf("of a repository without issues: %v, %v", got, err)
	}
	_, err := numbers("gone")
	wantClass(t, err, fault.ErrNotFound, "acme/gone")
}

func TestMake(t *testing.T) {
	s := serve(t, &githubtest.API{})
	ids := populate(s)
	s.World.Rename(ids["acme/dotfiles"], "configuration")
	p := s.connect(t, github.Options{})
	for _, test := range []struct {
		n       forge.NewRepository
		want    string
		private bool
		made    bool
	}{
		{forge.NewRepository{Name: "copy"}, "tester/copy", true, true},
		{forge.NewRepository{Name: "copy"}, "tester/copy", true, false},
		{forge.NewRepository{Owner: "Tester", Name: "DOTFILES", Visibility: "private"}, "tester/dotfiles", false, false},
		{forge.NewRepository{Owner: "acme", Name: "open", Visibility: "public", Description: "a\nb\x00" + strings.Repeat("é", 400)}, "acme/open", false, true},
		{forge.NewRepository{Owner: "acme", Name: "dotfiles"}, "acme/dotfiles", true, true}, // the name leads to another one
	} {
		before := len(s.World.All())
		got, err := p.Make(t.Context(), test.n)
		if err != nil {
			t.Errorf("%+v: %v", test.n, err)
			continue
		}
		if got.FullName() != test.want || got.Private != test.private || (len(s.World.All()) > before) != test.made || got.HTTPURL == "" {
			t.Errorf("%+v: got %+v", test.n, withoutRaw(got))
		}
	}
	if r, _, _ := s.World.ByName("acme/open"); !strings.HasPrefix(r.Description, "a b éé") || len([]rune(r.Description)) != 350 {
		t.Errorf("description %q", r.Description)
	}
	for _, test := range []struct {
		n     forge.NewRepository
		class error
		says  string
	}{
		{forge.NewRepository{Name: "x", Visibility: "unlisted"}, fault.ErrUnsupported, "unlisted"},
		{forge.NewRepository{Name: "x", Visibility: "internal"}, fault.ErrUnsupported, "internal"},
		{forge.NewRepository{Name: "a b"}, fault.ErrInvalid, "such a name"},
		{forge.NewRepository{Name: "x.wiki"}, fault.ErrInvalid, "such a name"},
		{forge.NewRepository{Name: strings.Repeat("x", 101)}, fault.ErrInvalid, "maximum is 100"},
		{forge.NewRepository{Owner: "nobody", Name: "x"}, fault.ErrNotFound, "nobody/x"},
	} {
		_, err := p.Make(t.Context(), test.n)
		wantClass(t, err, test.class, test.says)
	}
	wantClass(t, p.MakeOwner(t.Context(), "new-org", "private"), fault.ErrUnsupported, "people")
	if err := p.MakeOwner(t.Context(), "acme", "private"); err != nil {
		t.Error(err)
	}
}

// TestMakeTogether has another one make the repository after we saw that it is not there.
func TestMakeTogether(t *testing.T) {
	s := serve(t, &githubtest.API{})
	s.Break(forgetest.Break{
		Match: func(r *http.Request) bool { return r.Method == http.MethodPost }, Times: 1,
		Fault: func(w http.ResponseWriter, _ *http.Request, _, _ *httptest.ResponseRecorder) {
			forgetest.Answer(422, `{"message":"Repository creation failed.","errors":[{"message":"name already exists on this account"}]}`)(w, nil, nil, nil)
		},
	})
	got, err := s.connect(t, github.Options{}).Make(t.Context(), forge.NewRepository{Name: "copy"})
	if err != nil || got.FullName() != "tester/copy" {
		t.Errorf("got %+v, %v", withoutRaw(got), err)
	}
}

// TestInternalRepository is not described for github.com: Enterprise organisations have them.
func TestInternalRepository(t *testing.T) {
	api := &githubtest.API{World: forgetest.NewWorld(forgetest.NewClock().Now)}
	api.World.AddOwner("acme")
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	p, err := github.New(github.Options{URL: server.URL, Token: forgetest.Token})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Make(t.Context(), forge.NewRepository{Owner: "acme", Name: "x", Visibility: "internal"}); err != nil || !r.Private {
		t.Errorf("got %+v, %v", withoutRaw(r), err)
	}
}

// TestHostileObjects has answers that would lead git and its credentials elsewhere, or out of a directory.
func TestHostileObjects(t *testing.T) {
	for name, object := range map[string]string{
		"dots":          `{"id":1,"name":"..","owner":{"login":"acme"}}`,
		"slash":         `{"id":1,"name":"a/../../b","owner":{"login":"acme"}}`,
		"no id":         `{"name":"a","owner":{"login":"acme"}}`,
		"negative id":   `{"id":-1,"name":"a","owner":{"login":"acme"}}`,
		"owner's slash": `{"id":1,"name":"a","owner":{"login":"acme/x"}}`,
		"no owner":      `{"id":1,"name":"a","owner":null}`,
		"control":       `{"id":1,"name":"a\u0000","owner":{"login":"acme"}}`,
		"null":          `null`,
		"time":          `{"id":1,"name":"a","owner":{"login":"acme"},"pushed_at":"yesterday"}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := answering(t, "["+object+"]")
			_, _, err := list(t.Context(), p, forge.Selection{Organization: "acme"})
			wantClass(t, err, fault.ErrCorrupt, "list")
		})
	}
	p := answering(t, `[{"id":1,"name":"a","owner":{"login":"acme"},"clone_url":"https://evil.example/acme/a.git","has_wiki":true}]`)
	_, all, err := list(t.Context(), p, forge.Selection{Organization: "acme", Wikis: true})
	if err != nil || all[0].HTTPURL != "https://github.com/acme/a.git" || all[0].WikiHTTPURL != "https://github.com/acme/a.wiki.git" {
		t.Errorf("git is sent to %+v, %v", all, err)
	}
	for url, want := range map[string]string{
		"https://gist.github.com/abc.git":      "https://gist.github.com/abc.git",
		"https://gist.evil.example/abc.git":    "https://gist.github.com/abc.git",
		"https://evil.example/gist/abc.git":    "https://github.com/gist/abc.git",
		"https://gist.github.com/other/../abc": "",
		"ext::sh -c id":                        "",
	} {
		p := answering(t, `{"id":"abc","owner":{"login":"acme"},"git_pull_url":"`+url+`"}`)
		r, err := p.Find(t.Context(), forge.Repository{ID: "gist:abc"})
		if r.HTTPURL != want || (want == "") != errors.Is(err, fault.ErrCorrupt) {
			t.Errorf("%s: got %q, %v", url, r.HTTPURL, err)
		}
	}
}

// answering makes a provider of a github.com that gives one answer to all.
func answering(t *testing.T, body string) *github.Provider {
	t.Helper()
	p, err := github.New(github.Options{Token: "t", Client: forge.ClientOptions{Transport: roundTrip(func(*http.Request) *http.Response {
		w := httptest.NewRecorder()
		maps.Copy(w.Header(), http.Header{"Content-Type": {"application/json"}})
		w.WriteString(body)
		return w.Result()
	})}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
