package bitbucket

import (
	"net/url"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
)

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"uuid":"{1}","full_name":"acme/api","mainbranch":{"name":"main"},"has_wiki":true,"updated_on":"2026-01-02T03:04:05.171820+00:00",` +
			`"links":{"clone":[{"name":"https","href":"https://jo@bitbucket.org/acme/api.git"},{"name":"ssh","href":"git@bitbucket.org:acme/api.git"}]}}`,
		`{"uuid":"{1}","full_name":"acme/api","links":{"clone":[{"name":"https","href":"https://evil.example.net/%2e%2e/x"}]},"size":-1}`,
		`{"id":"kypj","title":"notes","is_private":true}`, `{"id":"a/b"}`, `{"uuid":"","full_name":"a/b/c"}`, `[]`, `null`, `{"links":{"clone":5}}`,
	} {
		f.Add([]byte(seed))
	}
	p, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	check := func(t *testing.T, r forge.Repository) {
		u, err := url.Parse(r.HTTPURL)
		if err != nil || u.Scheme != "https" || u.Host != "bitbucket.org" || u.User != nil {
			t.Errorf("git at %q: %v", r.HTTPURL, err)
		}
		if r.ID == "" || r.Owner == "" || r.Name == "" || strings.Contains(r.Name, "/") || r.Size < 0 {
			t.Errorf("read %+v", r)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := p.decode(raw, true); err == nil {
			check(t, r)
		}
		if r, err := p.decodeSnippet(raw, "acme"); err == nil {
			check(t, r)
		}
	})
}
