package github

import (
	"encoding/json"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/forge"
)

// FuzzRepository decodes objects as a hostile forge could answer them. Whatever becomes a repository has a name that can be a
// directory's, and an address on the host that the user named.
func FuzzRepository(f *testing.F) {
	for _, seed := range []string{
		`{"id":1296269,"name":"Hello-World","owner":{"login":"octocat","type":"User"},"private":false,"description":null,
			"html_url":"https://github.com/octocat/Hello-World","ssh_url":"git@github.com:octocat/Hello-World.git","has_wiki":true,
			"language":"C","default_branch":"main","size":108,"stargazers_count":80,"pushed_at":"2011-01-26T19:06:43Z"}`,
		`{"id":1,"name":"a","owner":{"login":"b"},"pushed_at":null,"language":{"name":"Go"},"default_branch":{"name":"trunk"},"empty":true}`,
		`{"id":1,"name":"..","owner":{"login":"."}}`,
		`{"id":1e3,"name":"a","owner":{"login":"b"},"size":-9223372036854775808}`,
		`{"id":9223372036854775807,"name":"a","owner":{"login":"b"},"size":9223372036854775807,"language":[],"ssh_url":"--upload-pack=x"}`,
		`{"id":"abc","owner":{"login":"octocat"},"git_pull_url":"https://gist.github.com/abc.git","files":{"a":{}}}`,
		`{"id":"abc","owner":null,"public":true,"git_pull_url":"https://user:pw@[::1]/gist/abc.git","updated_at":"0000-01-01T00:00:00Z"}`,
		`null`, `[]`, `{"owner":[]}`, ``,
	} {
		f.Add([]byte(seed))
	}
	p, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	answered := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, object []byte) {
		for _, decode := range []decoder{p.decode, p.decodeGist} {
			r, err := decode(json.RawMessage(object), answered)
			if err == nil {
				checkRepository(t, r)
			}
		}
	})
}

func checkRepository(t *testing.T, r forge.Repository) {
	t.Helper()
	u, err := url.Parse(r.HTTPURL)
	if err != nil || u.User != nil || (u.Host != "github.com" && u.Host != "gist.github.com") || !strings.HasSuffix(u.Path, r.Name+".git") {
		t.Errorf("git is sent to %q", r.HTTPURL)
	}
	if r.ID == "" || path.Join("/", r.Owner, r.Name) != "/"+r.FullName() || strings.ContainsAny(r.FullName(), "\\ \x00\n") || r.Size < 0 {
		t.Errorf("listed as %q, ID %q, %d bytes", r.FullName(), r.ID, r.Size)
	}
}
