package git

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
)

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]URL{
		"https://github.com/acme/api.git":            {Scheme: "https", Host: "github.com", Path: "/acme/api.git"},
		"HTTPS://GitHub.com:443/acme/api/":           {Scheme: "https", Host: "github.com", Path: "/acme/api"},
		"https://ana@git.example:8443/a%20b/c":       {Scheme: "https", User: "ana", Host: "git.example", Port: "8443", Path: "/a%20b/c"},
		"http://[::1]:3000/x":                        {Scheme: "http", Host: "::1", Port: "3000", Path: "/x"},
		"ssh://git@git.example/srv/x.git":            {Scheme: "ssh", User: "git", Host: "git.example", Path: "/srv/x.git"},
		"ssh://git@git.example:22/~ana/x":            {Scheme: "ssh", User: "git", Host: "git.example", Path: "~ana/x"},
		"git@github.com:acme/api.git":                {Scheme: "ssh", User: "git", Host: "github.com", Path: "acme/api.git"},
		"git.example:/srv/x y.git":                   {Scheme: "ssh", Host: "git.example", Path: "/srv/x y.git"},
		"git@[fe00::1]:x":                            {Scheme: "ssh", User: "git", Host: "fe00::1", Path: "x"},
		"git://git.example/x":                        {Scheme: "git", Host: "git.example", Path: "/x"},
		"file:///srv/a%20b.git":                      {Scheme: "file", Path: "/srv/a b.git"},
		"/srv/git/../x.git/":                         {Scheme: "file", Path: "/srv/x.git"},
		"./with:colon":                               {Scheme: "file", Path: mustAbs(t, "with:colon")},
		"sub/dir":                                    {Scheme: "file", Path: mustAbs(t, "sub/dir")},
		"ssh://someone%40corp.example@git.example/x": {Scheme: "ssh", User: "someone@corp.example", Host: "git.example", Path: "/x"},
	} {
		got, err := ParseURL(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if *got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", raw, *got, want)
		}
		again, err := ParseURL(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%s: %q does not parse to itself: %v", raw, got.String(), err)
		}
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func TestParseURLRefuses(t *testing.T) {
	const secret = "hunter2secret"
	for _, raw := range []string{
		"", "-oProxyCommand=evil", "ssh://-oProxyCommand=evil/x", "-evil@host:path", "ssh://-u@host/x", "git@-host:path", "host:-path",
		"ext::sh -c evil", "fd::17", "foo::bar", "ftp://host/x", "git+ssh://host/x", "javascript://x/y",
		"https://user:" + secret + "@host/x", "https://:" + secret + "@host/x", "user:" + secret + "@host:path",
		"https://user:" + secret + "/part@host/x", "https://ghp_" + secret + "@github.com/a/b", "https://glpat-" + secret + "@gitlab.com/a/b",
		"https://host/x?private_token=" + secret, "https://host/x#" + secret,
		"https://host/a\nb", "https://host/a%0ab", "ssh://host/a%00b", "file:///a%0ab", "/path\x1b[31m",
		"https://", "https:///x", "https://host", "https://host/", "ssh://host", "host:", "https://ho st/x", "https://host:0/x",
		"https://host:99999/x", "https://host:x/y", "file://host/x", "file://relative", "https://%zz/x", "ssh://u%20v@host/x",
	} {
		u, err := ParseURL(raw)
		switch {
		case err == nil:
			t.Errorf("%q is taken for %+v", raw, *u)
		case !errors.Is(err, fault.ErrInvalid):
			t.Errorf("%q: %v is not fault.ErrInvalid", raw, err)
		case strings.Contains(err.Error(), secret):
			t.Errorf("%q: the error tells the secret: %v", raw, err)
		case strings.ContainsFunc(err.Error(), unicode.IsControl):
			t.Errorf("%q: control characters in %q", raw, err)
		}
	}
}

func TestPasswordInURLHasHint(t *testing.T) {
	_, err := ParseURL("https://ana:secret@host/x")
	if hints := fault.Hints(err); len(hints) != 1 || !strings.Contains(hints[0], "netrc") {
		t.Errorf("hints %q do not say how to give a password", hints)
	}
}

func TestSubject(t *testing.T) {
	for raw, want := range map[string]string{
		"https://github.com/acme/api.git":   "github.com acme/api",
		"git@github.com:acme/api.git":       "github.com acme/api",
		"ssh://git@github.com/acme/api":     "github.com acme/api",
		"https://git.example:8443/a/b.git/": "git.example_8443 a/b",
		"http://[::1]:3000/x":               "__1_3000 x",
		"https://host/a//./../b%2F..%2Fc":   "host a/%2E%2E/b/%2E%2E/c",
		"https://host/a%20b/_git/c":         "host a b/_git/c",
		"host:../up.git":                    "host %2E%2E/up",
		"host:...git":                       "host %2E%2E",
		"host:a\\..\\b":                     "host a/%2E%2E/b",
		"host:~ana/x.git":                   "host ~ana/x",
		"/srv/git/x.git":                    "box srv/git/x.git",
		"/home/ana/src/.git":                "box home/ana/src",
		"/home/ana/work":                    "box home/ana/work",
		"/":                                 "box root",
		"file:///srv/\xff\xfe/\u202ex.git":  "box srv/%FF%FE/%E2%80%AEx.git",
	} {
		u, err := ParseURL(raw)
		if err != nil {
			t.Errorf("%q: %v", raw, err)
			continue
		}
		host, path := u.Subject("box")
		if got := host + " " + path; got != want {
			t.Errorf("%q: subject %q, want %q", raw, got, want)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"https://github.com/acme/api.git", "git@host:path", "ssh://u@[::1]:22/x", "file:///x", "./x", "ext::x", "a:b@c:d", "https://%41@host/%2e%2e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := ParseURL(raw)
		if err != nil {
			if !errors.Is(err, fault.ErrInvalid) {
				t.Errorf("error of another class: %v", err)
			}
			return
		}
		for _, field := range []string{u.Host, u.User, u.Port, u.Path} {
			if strings.HasPrefix(field, "-") || strings.ContainsFunc(field, unicode.IsControl) {
				t.Errorf("%q: field %q could be taken for something else", raw, field)
			}
		}
		host, path := u.Subject("box")
		if !utf8.ValidString(host+path) || strings.ContainsAny(host, `/\:`) || host == "" || path == "" {
			t.Errorf("%q: subject %q %q", raw, host, path)
		}
		for _, s := range strings.Split(path, "/") {
			if s == "" || s == "." || s == ".." {
				t.Errorf("%q: unsafe path %q", raw, path)
			}
		}
	})
}
