package gitlab

import (
	"net/url"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
)

func newProvider(t testing.TB, address string) *Provider {
	t.Helper()
	p, err := New(Options{URL: address})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAddressesForGitAreTheServers(t *testing.T) {
	p := newProvider(t, "https://git.example.com/gitlab")
	for _, test := range []struct{ listed, want string }{
		{"http://localhost/gitlab/acme/api.git", "https://git.example.com/gitlab/acme/api.git"},
		{"https://jo:pw@evil.example.net/gitlab/acme/api.git", "https://git.example.com/gitlab/acme/api.git"},
		{"https://evil.example.net/elsewhere.git", "https://git.example.com/gitlab/acme/api.git"},
		{"file:///etc/passwd", "https://git.example.com/gitlab/acme/api.git"},
		{"", "https://git.example.com/gitlab/acme/api.git"},
		{"::", "https://git.example.com/gitlab/acme/api.git"},
	} {
		if got := p.onSite(test.listed, "acme/api.git"); got != test.want {
			t.Errorf("%q becomes %q", test.listed, got)
		}
	}
}

// What only members see must not be taken for public: a mirror with the visibility of its source would show it to everybody.
func TestPrivacy(t *testing.T) {
	p := newProvider(t, "")
	for fields, want := range map[string]bool{
		`"visibility":"public"`:   false,
		`"visibility":"internal"`: true,
		`"visibility":"private"`:  true,
		`"description":""`:        true,
		`"visibility":"public","repository_access_level":"enabled","wiki_access_level":"disabled"`: false,
		`"visibility":"public","repository_access_level":"private"`:                                true,
		`"visibility":"public","wiki_access_level":"private"`:                                      true,
	} {
		r, err := p.decodeProject([]byte(`{"id":1,"path_with_namespace":"a/b",`+fields+`}`), true)
		if err != nil || r.Private != want {
			t.Errorf("%s: private %v, %v", fields, r.Private, err)
		}
	}
}

func TestWikis(t *testing.T) {
	p := newProvider(t, "")
	for _, test := range []struct{ fields, want string }{
		{`"wiki_access_level":"private"`, "https://gitlab.com/a/b.wiki.git"},
		{`"wiki_access_level":"disabled","wiki_enabled":true`, ""},
		{`"wiki_enabled":false`, ""},
		{`"wiki_enabled":true`, "https://gitlab.com/a/b.wiki.git"},
		{`"wiki_enabled":null`, "https://gitlab.com/a/b.wiki.git"}, // it is not known that there is none
	} {
		r, err := p.decodeProject([]byte(`{"id":1,"path_with_namespace":"a/b",`+test.fields+`}`), true)
		if err != nil || r.WikiHTTPURL != test.want {
			t.Errorf("%s: %q, %v", test.fields, r.WikiHTTPURL, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"path_with_namespace":"acme/api","http_url_to_repo":"https://gitlab.com/acme/api.git","last_activity_at":"2026-01-02T03:04:05.678+02:00"}`,
		`{"id":1,"path_with_namespace":"a/b/c","forked_from_project":{"id":2},"statistics":{"repository_size":-5},"wiki_access_level":"enabled"}`,
		`{"id":12,"author":{"username":"jo"},"web_url":"https://gitlab.com/acme/api/-/snippets/12","http_url_to_repo":"//evil.example.net/x"}`,
		`{"id":9223372036854775807,"path_with_namespace":"/x/"}`, `{"id":"1"}`, `[]`, `null`, `{"id":1,"path_with_namespace":"a/\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	p := newProvider(f, "https://git.example.com/gitlab")
	check := func(t *testing.T, r forge.Repository) {
		u, err := url.Parse(r.HTTPURL)
		if err != nil || u.Scheme != "https" || u.Host != "git.example.com" || u.User != nil {
			t.Errorf("git at %q: %v", r.HTTPURL, err)
		}
		if r.ID == "" || r.Owner == "" || r.Name == "" || strings.Contains(r.Name, "/") || r.Size < 0 {
			t.Errorf("read %+v", r)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := p.decodeProject(raw, true); err == nil {
			check(t, r)
		}
		if r, err := p.decodeSnippet(raw); err == nil {
			check(t, r)
		}
	})
}
