package gitlab

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestFileURLs(t *testing.T) {
	p := newProvider(t, "https://git.example.com/gitlab")
	for _, test := range []struct{ collection, raw, want string }{
		{"issues", `{"description":"![a](/uploads/` + secret + `/a.png)"}`, "/uploads/" + secret + "/a.png"},
		{"comments", `{"body":"https://git.example.com/gitlab/acme/api/uploads/` + secret + `/a.png"}`, "https://git.example.com/gitlab/acme/api/uploads/" + secret + "/a.png"},
		{"comments", `{"body":"[x](/-/project/12/uploads/` + secret + `/b%20c.txt)"}`, "/-/project/12/uploads/" + secret + "/b%20c.txt"},
		{"comments", `{"body":"https://evil.example.net/uploads/` + secret + `/a.png and https://git.example.com@evil.example.net/uploads/` + secret + `/a"}`, ""},
		{"comments", `{"body":"/uploads/short/a.png [up](/uploads/` + secret + `/..) http://169.254.169.254/latest"}`, ""},
		{"comments", `{"title":"/uploads/` + secret + `/a.png"}`, ""},
		{
			"releases", `{"description":"","assets":{"links":[
			{"name":"app","url":"https://git.example.com/gitlab/api/v4/projects/1/packages/generic/app/1/app"},
			{"name":"far","url":"https://evil.example.net/app"},{"name":"near","url":"https://git.example.com/other"},{"name":"none","url":""}]}}`,
			"https://git.example.com/gitlab/api/v4/projects/1/packages/generic/app/1/app",
		},
		{"releases", `{"assets":{"links":7}}`, ""},
	} {
		var got []string
		for _, f := range p.FileURLs(archive.Record{Key: archive.Key{Collection: test.collection, ID: "1"}, Raw: []byte(test.raw)}) {
			got = append(got, f.URL)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q", test.raw, got)
		}
	}
}

func TestGetFile(t *testing.T) {
	var asked []string
	older := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.EscapedPath())
		if r.Header.Get("PRIVATE-TOKEN") != "some-token" {
			t.Errorf("%s without the token", r.URL)
		}
		if strings.HasPrefix(r.URL.Path, "/api/") == older || !strings.HasSuffix(r.URL.Path, "/b c.txt") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		io.WriteString(w, "content")
	}))
	defer server.Close()
	p, err := New(Options{URL: server.URL, Token: "some-token"})
	if err != nil {
		t.Fatal(err)
	}
	r := forge.Repository{ID: "12", Owner: "acme", Name: "api"}
	for _, test := range []struct {
		older   bool
		address string
		want    []string
	}{
		{false, "/uploads/" + secret + "/b%20c.txt", []string{"/api/v4/projects/12/uploads/" + secret + "/b%20c.txt"}},
		{false, server.URL + "/x/y/uploads/" + secret + "/b%20c.txt", []string{"/api/v4/projects/x%2Fy/uploads/" + secret + "/b%20c.txt"}},
		{true, "/uploads/" + secret + "/b%20c.txt", []string{"/api/v4/projects/12/uploads/" + secret + "/b%20c.txt", "/acme/api/uploads/" + secret + "/b%20c.txt"}},
	} {
		asked, older = nil, test.older
		body, err := p.GetFile(t.Context(), r, archive.File{URL: test.address}, 100)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(body)
		body.Close()
		if err != nil || string(content) != "content" || !slices.Equal(asked, test.want) {
			t.Errorf("%q, %v: asked %q", content, err, asked)
		}
	}
	if _, err := p.GetFile(t.Context(), r, archive.File{URL: "/uploads/" + secret + "/missing"}, 100); !notFound(err) {
		t.Errorf("of a file that is gone: %v", err)
	}
	if _, err := p.GetFile(t.Context(), r, archive.File{URL: "https://evil.example.net/uploads/" + secret + "/b"}, 100); err == nil {
		t.Error("another host is asked")
	}
}
