package gitlab_test

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/gitlab"
)

// names lists what a selection names, with the classes of what is not owned: "acme/api", "acme/tool (starred)".
func (b *bench) names(t *testing.T, s forge.Selection) ([]string, error) {
	t.Helper()
	var all []string
	for r, err := range b.Repositories(t.Context(), s) {
		if err != nil {
			return all, err
		}
		name := r.FullName()
		if r.Class != forge.Owned {
			name += " (" + string(r.Class) + ")"
		}
		all = append(all, name)
	}
	return all, nil
}

func TestSelection(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"acme/api", "acme/team/deep/tool", "acme-labs/api", "jo/api", "zoe/toy", "zoe/lib"} {
		owner, name := name[:strings.LastIndex(name, "/")], name[strings.LastIndex(name, "/")+1:]
		b.world.Add(forgetest.Repo{Owner: owner, Name: name})
	}
	b.world.AddOwner("acme/team")
	b.fake.starred = []string{"zoe/toy", "acme/api"}
	b.fake.contrib = []string{"zoe/lib", "zoe/toy"}
	b.fake.snippets = []map[string]any{
		{
			"id": 12, "title": "notes", "visibility": "private", "author": map[string]any{"username": "tester"},
			"web_url": b.server.URL + "/-/snippets/12", "http_url_to_repo": b.server.URL + "/snippets/12.git",
		},
		{
			"id": 13, "title": "of a project", "project_id": 7, "author": map[string]any{"username": "tester"},
			"web_url": b.server.URL + "/acme/api/-/snippets/13", "http_url_to_repo": b.server.URL + "/acme/api/snippets/13.git",
		},
	}
	all := []string{"acme/api", "acme/team/deep/tool", "acme-labs/api", "jo/api", "zoe/toy", "zoe/lib"}
	for _, test := range []struct {
		name string
		s    forge.Selection
		want []string
	}{
		{"own and member of", forge.Selection{}, all},
		{"own, with what is starred among it", forge.Selection{Starred: true}, all},
		{"user", forge.Selection{User: "jo"}, []string{"jo/api"}},
		{"user and groups", forge.Selection{User: "jo", Organizations: []string{"acme"}}, []string{"jo/api", "acme/api", "acme/team/deep/tool"}},
		{"group with subgroups", forge.Selection{Organization: "acme"}, []string{"acme/api", "acme/team/deep/tool"}},
		{"subgroup", forge.Selection{Organization: "acme/team"}, []string{"acme/team/deep/tool"}},
		{"groups that overlap", forge.Selection{Organization: "acme", Organizations: []string{"acme/team"}}, []string{"acme/api", "acme/team/deep/tool"}},
		{"starred of the token's", forge.Selection{Organization: "acme-labs", Starred: true}, []string{"acme-labs/api", "acme/api (starred)", "zoe/toy (starred)"}},
		{"starred of a user", forge.Selection{User: "zoe", Starred: true}, []string{"zoe/toy", "zoe/lib", "acme/api (starred)"}},
		{"contributed", forge.Selection{Organization: "jo", Contributed: true}, []string{"jo/api", "zoe/toy (contributed)", "zoe/lib (contributed)"}},
		{"snippets", forge.Selection{User: "tester", Gists: true}, []string{"tester/12 (gist)", "acme/api/13 (gist)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := b.names(t, test.s)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestSnippetsOfOthersAreRefusedAfterTheRest(t *testing.T) {
	b := newBench(t)
	b.world.Add(forgetest.Repo{Owner: "jo", Name: "api"})
	got, err := b.names(t, forge.Selection{User: "jo", Gists: true})
	if !errors.Is(err, fault.ErrUnsupported) || !slices.Equal(got, []string{"jo/api"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAGroupThatIsGoneCostsNoOther(t *testing.T) {
	b := newBench(t)
	for _, owner := range []string{"acme", "zoe"} {
		b.world.Add(forgetest.Repo{Owner: owner, Name: "api"})
	}
	got, err := b.names(t, forge.Selection{Organization: "acme", Organizations: []string{"gone", "typo/x", "zoe"}})
	if !errors.Is(err, fault.ErrNotFound) || !strings.Contains(err.Error(), "gone") || !strings.Contains(err.Error(), "typo") {
		t.Errorf("got %v", err)
	}
	if want := []string{"acme/api", "zoe/api"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	b.server.Break(forgetest.Break{Fault: forgetest.HangUp})
	before := len(b.server.Requests())
	if _, err := b.names(t, forge.Selection{Organization: "acme", Organizations: []string{"zoe"}}); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if n := len(b.server.Requests()) - before; n > 6 { // one list, tried again, and not two
		t.Errorf("a server that is away was asked %d times", n)
	}
}

func TestWithoutATokenNothingOwnIsListed(t *testing.T) {
	b := newBench(t)
	p, err := gitlab.New(gitlab.Options{URL: b.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	b.Provider = p
	for _, s := range []forge.Selection{{}, {Organizations: []string{"acme"}}, {Organization: "acme", Starred: true}, {User: "jo", Gists: true}} {
		if _, err := b.names(t, s); !errors.Is(err, fault.ErrDenied) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if n := len(b.server.Requests()); n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestRepositoryAsListed(t *testing.T) {
	b := newBench(t)
	w := b.world.Add(forgetest.Repo{
		Owner: "acme/team", Name: "api", Description: "an API", DefaultBranch: "trunk",
		Private: true, Fork: true, Archived: true, Wiki: true, Stars: 7, Size: 4096,
	})
	b.fake.languages[w.ID] = map[string]float64{"Shell": 3.5, "Go": 90.1, "C": 3.5}
	var got forge.Repository
	for r, err := range b.Repositories(t.Context(), forge.Selection{Organization: "acme/team", Wikis: true, Languages: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = r
	}
	want := forge.Repository{
		ID: fmt.Sprint(w.ID), Owner: "acme/team", Name: "api",
		HTTPURL: b.server.URL + "/acme/team/api.git", SSHURL: "git@gitlab.internal:acme/team/api.git",
		WikiHTTPURL: b.server.URL + "/acme/team/api.wiki.git", WikiSSHURL: "git@gitlab.internal:acme/team/api.wiki.git",
		WebURL: "http://gitlab.internal/acme/team/api", Description: "an API", DefaultBranch: "trunk",
		Private: true, Fork: true, Archived: true, Stars: 7, Languages: []string{"Go", "C", "Shell"}, Size: 4096,
		Active: w.Updated, Raw: got.Raw,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAListingThatShrinksIsReadAgain(t *testing.T) {
	b := newBench(t)
	all := b.world.Grow("acme", 250)
	b.fake.shift = func() { // once
		b.world.Delete(all[4].ID)
		b.fake.shift = nil
	}
	got, err := b.names(t, forge.Selection{Organization: "acme"})
	if err != nil || len(got) != 250 { // with the deleted one, which was seen
		t.Errorf("listed %d, %v", len(got), err)
	}
}

func TestAListingThatKeepsShrinkingIsIncomplete(t *testing.T) {
	b := newBench(t)
	all := b.world.Grow("acme", 250)
	b.fake.shift = func() { b.world.Delete(all[0].ID); all = all[1:] }
	if got, err := b.names(t, forge.Selection{Organization: "acme"}); !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("listed %d, %v", len(got), err)
	}
}

func TestPagesByKeyAreNotShifted(t *testing.T) {
	b := newBench(t)
	all := b.world.Grow("jo", 250)
	var got []string
	for r, err := range b.Repositories(t.Context(), forge.Selection{User: "jo"}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, r.Name); len(got) == 50 {
			b.world.Delete(all[3].ID)
		}
	}
	if len(got) != 250 {
		t.Errorf("listed %d", len(got))
	}
	if n := len(b.server.Requests()); n != 3 {
		t.Errorf("%d requests for 250 projects", n)
	}
}

func TestLinksStayOnTheServer(t *testing.T) {
	for _, link := range []string{"http://evil.example.net/x", "http://evil.example.net/api/v4evil", "%", "mailto:jo"} {
		b := newBench(t)
		b.server.Break(forgetest.Break{Fault: forgetest.Answer(200, "[]", "Link: <"+link+`>; rel="next"`)})
		if got, err := b.names(t, forge.Selection{Organization: "acme"}); !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("%s: listed %q, %v", link, got, err)
		}
	}
}

func TestTooManyProjectsOfAGroup(t *testing.T) {
	b := newBench(t)
	b.world.Grow("acme", 101)
	b.server.Break(forgetest.Break{After: 1, Fault: forgetest.Answer(http.StatusMethodNotAllowed,
		`{"error":"Offset pagination has a maximum allowed offset of 50000 for requests that return objects of type Project."}`)})
	_, err := b.names(t, forge.Selection{Organization: "acme"})
	if !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(strings.Join(fault.Hints(err), ""), "50,000") {
		t.Errorf("got %v, hints %q", err, fault.Hints(err))
	}
}

func TestIssues(t *testing.T) {
	b := newBench(t)
	w := b.world.Add(forgetest.Repo{Owner: "acme", Name: "api"})
	b.world.AddIssues(w.ID, 430) // of which 150 at one instant
	var got []int64
	for i, err := range b.Issues(t.Context(), forge.Repository{ID: fmt.Sprint(w.ID), Owner: "acme", Name: "api"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i.Number)
	}
	for i, n := range got {
		if n != int64(i+1) {
			t.Fatalf("issue %d comes as number %d", n, i+1)
		}
	}
	if len(got) != 430 {
		t.Errorf("%d issues", len(got))
	}
	if deep := b.server.Count(func(r forgetest.Request) bool { return strings.Contains(r.Query, "page=3") }); deep > 0 {
		t.Errorf("%d requests for deep pages", deep)
	}
}

func TestMake(t *testing.T) {
	b := newBench(t)
	b.world.AddOwner("acme/team")
	n := forge.NewRepository{Owner: "acme/team", Name: "copy", Description: "d"}
	made, err := b.Make(t.Context(), n)
	if err != nil || made.FullName() != "acme/team/copy" || !made.Private {
		t.Fatalf("made %+v, %v", made, err)
	}
	again, err := b.Make(t.Context(), n)
	if err != nil || again.ID != made.ID {
		t.Errorf("made again: %+v, %v", again, err)
	}
	own, err := b.Make(t.Context(), forge.NewRepository{Name: "copy", Visibility: "public"})
	if err != nil || own.FullName() != "tester/copy" || own.Private {
		t.Errorf("in the own namespace: %+v, %v", own, err)
	}
	if _, err := b.Make(t.Context(), forge.NewRepository{Owner: "nobody", Name: "copy"}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("for an owner that is not there: %v", err)
	}
	if _, err := b.Make(t.Context(), forge.NewRepository{Name: "copy", Visibility: "limited"}); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("with a visibility GitLab has not: %v", err)
	}
}

func TestARedirectedNameIsFree(t *testing.T) {
	b := newBench(t)
	old := b.world.Add(forgetest.Repo{Owner: "acme", Name: "api"})
	b.world.Rename(old.ID, "api-v1")
	made, err := b.Make(t.Context(), forge.NewRepository{Owner: "acme", Name: "api"})
	if err != nil || made.ID == fmt.Sprint(old.ID) || made.FullName() != "acme/api" {
		t.Errorf("made %+v, %v", made, err)
	}
}

func TestMakeOwner(t *testing.T) {
	b := newBench(t)
	b.world.AddOwner("acme")
	for range 2 {
		if err := b.MakeOwner(t.Context(), "acme/team/deep", ""); err != nil {
			t.Fatal(err)
		}
	}
	if b.world.OwnerID("acme/team/deep") == 0 {
		t.Errorf("owners are %q", b.world.Owners())
	}
	if n := b.server.Count(func(r forgetest.Request) bool { return r.Method == http.MethodPost }); n != 2 {
		t.Errorf("%d groups were made", n)
	}
	if err := b.MakeOwner(t.Context(), "1001", ""); err == nil { // the ID of another owner
		t.Error("a name that GitLab takes for an ID is taken for the group")
	}
	b.fake.deny["top"] = true
	err := b.MakeOwner(t.Context(), "top", "public")
	if !errors.Is(err, fault.ErrDenied) || !strings.Contains(strings.Join(fault.Hints(err), ""), "browser") {
		t.Errorf("got %v, hints %q", err, fault.Hints(err))
	}
}

func TestPullMirror(t *testing.T) {
	const password = fault.Secret("source-password-1f")
	m := forge.PullMirror{
		NewRepository: forge.NewRepository{Owner: "acme", Name: "copy"},
		From:          "https://git.example.com/jo/api.git", Username: "jo", Password: password,
	}
	b := newBench(t)
	b.world.AddOwner("acme")

	err := b.PullMirror(t.Context(), m)
	if !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(strings.Join(fault.Hints(err), ""), "Premium") {
		t.Fatalf("without the licence: %v, hints %q", err, fault.Hints(err))
	}
	b.fake.premium = true
	for range 2 { // the empty project that was made is taken; then the mirror is there
		if err := b.PullMirror(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.server.Count(func(r forgetest.Request) bool { return r.Method == http.MethodPut && r.Status == http.StatusOK }); n != 1 {
		t.Errorf("the mirror was set up %d times", n)
	}
	for _, r := range b.server.Requests() {
		if strings.Contains(r.Path+r.Query, password.Reveal()) || strings.Contains(r.Body, "jo:"+password.Reveal()) {
			t.Errorf("the password is in an address: %s %s", r.Method, r.Path)
		}
	}

	other := m
	other.From = "https://git.example.com/jo/other.git"
	if err := b.PullMirror(t.Context(), other); !errors.Is(err, fault.ErrExists) {
		t.Errorf("a mirror of another source: %v", err)
	}
	b.world.Add(forgetest.Repo{Owner: "acme", Name: "taken"})
	other.Name = "taken"
	if err := b.PullMirror(t.Context(), other); !errors.Is(err, fault.ErrExists) {
		t.Errorf("a project that is no mirror: %v", err)
	}
	m.Wiki = true
	if err := b.PullMirror(t.Context(), m); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("with a wiki: %v", err)
	}
}

func TestAFailedPullIsTold(t *testing.T) {
	b := newBench(t)
	b.fake.premium = true
	m := forge.PullMirror{NewRepository: forge.NewRepository{Name: "copy"}, From: "https://git.example.com/a.git", Password: "source-password-2e"}
	if err := b.PullMirror(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for _, mirror := range b.fake.mirrors {
		mirror["update_status"], mirror["last_error"] = "failed", "fatal: no access with source-password-2e\x1b[31m"
	}
	err := b.PullMirror(t.Context(), m)
	if !errors.Is(err, fault.ErrUnavailable) || !strings.Contains(err.Error(), "fatal: no access") {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "source-password-2e") || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("the error shows %v", err)
	}
	if n := b.server.Count(func(r forgetest.Request) bool { return r.Method == http.MethodPut }); n != 2 {
		t.Errorf("the credentials were given %d times", n)
	}
}

func TestInspectScopes(t *testing.T) {
	for _, test := range []struct {
		scopes []string
		copies bool
		want   []string
	}{
		{[]string{"api"}, false, nil},
		{[]string{"read_api", "read_repository"}, false, nil},
		{[]string{"read_api", "write_repository"}, false, nil},
		{[]string{"read_repository"}, false, []string{"read_api"}},
		{[]string{"read_user"}, false, []string{"read_api", "read_repository"}},
		{[]string{"read_api", "write_repository"}, true, []string{"api"}},
		{[]string{"api"}, true, nil},
	} {
		b := newBench(t)
		b.world.SetToken(forgetest.Credentials{Account: "jo", Scopes: test.scopes})
		p, err := gitlab.New(gitlab.Options{URL: b.server.URL, Token: forgetest.Token, Copies: test.copies})
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.Inspect(t.Context())
		if err != nil || c.Account != "jo" || !c.Expires.IsZero() || !slices.Equal(c.Missing, test.want) {
			t.Errorf("%q, copies %v: %+v, %v", test.scopes, test.copies, c, err)
		}
	}
}

func TestInspectTokensThatDoNotDescribeThemselves(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusNotFound} {
		b := newBench(t)
		b.server.Break(forgetest.Break{
			Match: func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/self") }, Fault: forgetest.Answer(status, `{}`),
		})
		c, err := b.Inspect(t.Context())
		if err != nil || c.Account != "tester" || c.Missing != nil {
			t.Errorf("%d: %+v, %v", status, c, err)
		}
	}
}

func TestFindSnippet(t *testing.T) {
	b := newBench(t)
	b.fake.snippets = []map[string]any{{"id": 12, "author": map[string]any{"username": "jo"}}}
	found, err := b.Find(t.Context(), forge.Repository{ID: "snippet-12", Owner: "jo"})
	if err != nil || found.FullName() != "jo/12" || found.HTTPURL != b.server.URL+"/snippets/12.git" {
		t.Errorf("found %+v, %v", found, err)
	}
	if _, err := b.Find(t.Context(), forge.Repository{ID: "snippet-13", Owner: "jo"}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	for _, test := range []struct {
		o        gitlab.Options
		header   string // with which the API is asked
		user, is string // for git
	}{
		{gitlab.Options{Token: forgetest.Token}, "PRIVATE-TOKEN", "oauth2", forgetest.Token},
		{gitlab.Options{Token: forgetest.Token, Username: "jo", Password: "pw"}, "PRIVATE-TOKEN", "oauth2", forgetest.Token},
		{gitlab.Options{Username: "jo", Password: "pw"}, "", "jo", "pw"},
		{gitlab.Options{}, "", "", ""},
	} {
		b := newBench(t)
		test.o.URL = b.server.URL
		p, err := gitlab.New(test.o)
		if err != nil {
			t.Fatal(err)
		}
		user, password, err := p.GitCredentials(t.Context())
		if err != nil || user != test.user || password.Reveal() != test.is {
			t.Errorf("%+v: git gets %q, %v", test.o, user, err)
		}
		b.Provider = p
		b.names(t, forge.Selection{Organization: "tester"}) //nolint:errcheck // what is sent counts
		for _, r := range b.server.Requests() {
			for _, name := range []string{"Private-Token", "Authorization"} {
				if got, want := r.Header.Get(name) != "", strings.EqualFold(name, test.header); got != want {
					t.Errorf("%+v: header %s is sent: %v", test.o, name, got)
				}
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct{ url, host string }{
		{"", "gitlab.com"},
		{"gitlab.com", "gitlab.com"},
		{"https://GitLab.example.com/", "gitlab.example.com"},
		{"https://git.example.com:8443/gitlab/api/v4/", "git.example.com_8443"},
		{"http://[::1]:8080", "__1_8080"},
		{"https://gitlab.example.com:443", "gitlab.example.com"},
	} {
		p, err := gitlab.New(gitlab.Options{URL: test.url})
		if err != nil || p.Host() != test.host {
			t.Errorf("%q: %v", test.url, err)
		}
	}
	for _, bad := range []string{"ftp://gitlab.com", "https://", "https://jo:pass-word@gitlab.com", "::"} {
		_, err := gitlab.New(gitlab.Options{URL: bad})
		if !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
