package bitbucket_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/bitbucket"
	"github.com/backstay/backstay/internal/forge/forgetest"
)

// names lists what a selection names: "acme/api", "acme/kypj (gist)".
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

func account() bitbucket.Options {
	return bitbucket.Options{Token: forgetest.Token, Username: email}
}

func TestSelection(t *testing.T) {
	b := newBench(t, account())
	for _, owner := range []string{"acme", "jo", "zoe"} {
		b.world.Add(forgetest.Repo{Owner: owner, Name: "api"})
	}
	b.fake.member = []string{"acme", "jo"}
	b.fake.snippets["acme"] = []string{"kypj"}
	for _, test := range []struct {
		name string
		s    forge.Selection
		want []string
	}{
		{"all workspaces of the account", forge.Selection{}, []string{"acme/api", "jo/api"}},
		{"and others", forge.Selection{Organizations: []string{"zoe", "ACME"}}, []string{"acme/api", "jo/api", "zoe/api"}},
		{"workspace", forge.Selection{Organization: "zoe"}, []string{"zoe/api"}},
		{"user", forge.Selection{User: "jo"}, []string{"jo/api"}},
		{"snippets", forge.Selection{Organization: "acme", Gists: true}, []string{"acme/api", "acme/kypj (gist)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := b.names(t, test.s)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
	got, err := b.names(t, forge.Selection{User: "jo", Starred: true})
	if !errors.Is(err, fault.ErrUnsupported) || !slices.Equal(got, []string{"jo/api"}) {
		t.Errorf("starred: got %q, %v", got, err)
	}
}

func TestAWorkspaceThatIsGoneCostsNoOther(t *testing.T) {
	b := newBench(t, account())
	b.world.Add(forgetest.Repo{Owner: "acme", Name: "api"})
	b.fake.member = []string{"gone", "acme"}
	got, err := b.names(t, forge.Selection{})
	if !errors.Is(err, fault.ErrNotFound) || !strings.Contains(err.Error(), "gone") || !slices.Equal(got, []string{"acme/api"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRepositoryAsListed(t *testing.T) {
	b := newBench(t, account())
	w := b.world.Add(forgetest.Repo{
		Owner: "acme", Name: "api", Description: "an API", DefaultBranch: "trunk", Private: true, Fork: true, Wiki: true, Language: "Go", Size: 4096,
	})
	b.world.Add(forgetest.Repo{Owner: "acme", Name: "fresh", Empty: true})
	var got []forge.Repository
	for r, err := range b.Repositories(t.Context(), forge.Selection{Organization: "acme", Wikis: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	want := forge.Repository{
		ID: uuid(w), Owner: "acme", Name: "api",
		HTTPURL: b.server.URL + "/acme/api.git", SSHURL: "git@bitbucket.org:acme/api.git",
		WikiHTTPURL: b.server.URL + "/acme/api.git/wiki", WikiSSHURL: "git@bitbucket.org:acme/api.git/wiki",
		WebURL: "https://bitbucket.org/acme/api", Description: "an API", DefaultBranch: "trunk",
		Private: true, Fork: true, Languages: []string{"go"}, Size: 4096, Active: w.Updated, Raw: got[0].Raw,
	}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("got  %+v\nwant %+v", got[0], want)
	}
	if !got[1].Empty || got[1].WikiHTTPURL != "" {
		t.Errorf("an empty one without wiki: %+v", got[1])
	}
}

func TestAListingThatShrinks(t *testing.T) {
	b := newBench(t, account())
	all := b.world.Grow("acme", 250)
	b.fake.shift = func() { // once
		b.world.Delete(all[4].ID)
		b.fake.shift = nil
	}
	got, err := b.names(t, forge.Selection{Organization: "acme"})
	if err != nil || len(got) != 250 { // with the deleted one, which was seen
		t.Errorf("listed %d, %v", len(got), err)
	}
	b.fake.shift = func() { b.world.Delete(all[9].ID); all = all[1:] }
	if got, err := b.names(t, forge.Selection{Organization: "acme"}); !errors.Is(err, fault.ErrIncomplete) {
		t.Errorf("one that keeps shrinking: listed %d, %v", len(got), err)
	}
}

func TestPagesThatCannotBeFollowed(t *testing.T) {
	for name, body := range map[string]string{
		"next is no address": `{"values":[],"next":5}`,
		"next is elsewhere":  `{"values":[],"next":"https://evil.example.net/2.0/repositories/acme?page=2"}`,
		"no values":          `{"next":""}`,
		"values are others":  `{"values":[{"type":"project"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, account())
			b.server.Break(forgetest.Break{Fault: forgetest.Answer(200, body)})
			if got, err := b.names(t, forge.Selection{Organization: "acme"}); err == nil {
				t.Errorf("counts as complete with %q", got)
			}
		})
	}
}

func TestFindSnippet(t *testing.T) {
	b := newBench(t, account())
	b.fake.snippets["acme"] = []string{"kypj"}
	found, err := b.Find(t.Context(), forge.Repository{ID: "snippet-acme/kypj"})
	if err != nil || found.FullName() != "acme/kypj" || found.HTTPURL != b.server.URL+"/snippets/acme/kypj/notes.git" {
		t.Errorf("found %+v, %v", found, err)
	}
	if _, err := b.Find(t.Context(), forge.Repository{ID: "snippet-acme/gone"}); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestInspectScopes(t *testing.T) {
	for _, test := range []struct {
		scopes []string
		want   []string
	}{
		{[]string{"read:repository:bitbucket", "read:workspace:bitbucket"}, nil},
		{[]string{"repository:write"}, nil},
		{[]string{"write:repository:bitbucket"}, []string{"read:repository:bitbucket"}}, // it does not include reading
	} {
		b := newBench(t, account())
		b.world.SetToken(forgetest.Credentials{Account: "jo", Scopes: test.scopes})
		c, err := b.Inspect(t.Context())
		if err != nil || c.Account != "jo" || !slices.Equal(c.Missing, test.want) {
			t.Errorf("%q: %+v, %v", test.scopes, c, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	for _, test := range []struct {
		o        bitbucket.Options
		works    bool   // with the API of the fake
		user, is string // for git
	}{
		{account(), true, "x-bitbucket-api-token-auth", forgetest.Token},
		{bitbucket.Options{Token: forgetest.Token}, true, "x-token-auth", forgetest.Token},
		{bitbucket.Options{Username: email, Password: forgetest.Token}, true, "x-bitbucket-api-token-auth", forgetest.Token},
		{bitbucket.Options{Username: "jo", Password: "app-password"}, false, "jo", "app-password"},
		{bitbucket.Options{}, false, "", ""},
	} {
		b := newBench(t, test.o)
		b.world.AddOwner("acme")
		user, password, err := b.GitCredentials(t.Context())
		if err != nil || user != test.user || password.Reveal() != test.is {
			t.Errorf("%+v: git gets %q, %v", test.o, user, err)
		}
		if _, err := b.names(t, forge.Selection{Organization: "acme"}); (err == nil) != test.works {
			t.Errorf("%+v: %v", test.o, err)
		} else if err != nil && strings.Contains(err.Error(), "app-password") {
			t.Errorf("the password shows: %v", err)
		}
		if strings.Contains(fmt.Sprintf("%+v", test.o), "app-password") {
			t.Error("the password shows in the options")
		}
	}
}

func TestAddresses(t *testing.T) {
	for url, host := range map[string]string{
		"": "bitbucket.org", "bitbucket.org": "bitbucket.org", "https://api.bitbucket.org/2.0": "bitbucket.org",
		"https://www.Bitbucket.org/": "bitbucket.org", "http://127.0.0.1:8080": "127.0.0.1_8080",
	} {
		p, err := bitbucket.New(bitbucket.Options{URL: url})
		if err != nil || p.Host() != host {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, bad := range []string{"ftp://bitbucket.org", "https://", "https://jo:pass-word@bitbucket.org", "::"} {
		_, err := bitbucket.New(bitbucket.Options{URL: bad})
		if !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
