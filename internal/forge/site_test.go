package forge_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/git"
)

// One address, however it is written, is one site with one name: that of git's subjects.
func TestParseSite(t *testing.T) {
	for _, test := range []struct{ address, site, host string }{
		{"git.example.com", "https://git.example.com", "git.example.com"},
		{"https://Git.Example.com/", "https://git.example.com", "git.example.com"},
		{"https://git.example.com:443", "https://git.example.com", "git.example.com"},
		{"http://git.example.com:80/", "http://git.example.com", "git.example.com"},
		{"http://git.example.com:443", "http://git.example.com:443", "git.example.com_443"},
		{"https://git.example.com:", "https://git.example.com", "git.example.com"},
		{"git.example.com:3000", "https://git.example.com:3000", "git.example.com_3000"},
		{"https://git.example.com/sub/api/v1/", "https://git.example.com/sub", "git.example.com"},
		{"https://git.example.com/sub", "https://git.example.com/sub", "git.example.com"},
		{"http://[::1]:8080", "http://[::1]:8080", "__1_8080"},
		{"https://[2001:db8::443]", "https://[2001:db8::443]", "2001_db8__443"},
	} {
		site, err := forge.ParseSite(test.address, "/api/v1")
		if err != nil || site.String() != test.site || forge.HostName(site) != test.host {
			t.Errorf("%s: %v, %v", test.address, site, err)
			continue
		}
		u, err := git.ParseURL(test.site + "/ann/api.git")
		if err != nil {
			t.Fatal(err)
		}
		if host, _ := u.Subject(""); host != test.host && !strings.Contains(test.site, "[") {
			t.Errorf("%s is %s, and %s to git", test.address, test.host, host)
		}
	}
	for _, bad := range []string{
		"", "::", "ftp://git.example.com", "https://", "https://:443", "https://jo:pass-word@git.example.com",
		"https://git.example.com?token=pass-word", "https://git.example.com/#pass-word",
	} {
		if site, err := forge.ParseSite(bad); !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%q: %v, %v", bad, site, err)
		}
	}
}

func TestOnSite(t *testing.T) {
	for _, test := range []struct{ site, listed, want string }{
		{"https://git.example.com", "http://internal:3000/ann/api.git", "https://git.example.com/ann/api.git"},
		{"https://git.example.com", "https://ann:pass-word@git.example.com/ann/api.git?x=y", "https://git.example.com/ann/api.git"},
		{"https://git.example.com/sub", "https://git.example.com/sub/ann/api.git", "https://git.example.com/sub/ann/api.git"},
		{"https://git.example.com/sub", "https://git.example.com/ann/api.git", ""},
		{"https://git.example.com", "git@git.example.com:ann/api.git", ""},
		{"https://git.example.com", "", ""},
		{"https://git.example.com", "::", ""},
	} {
		site, err := forge.ParseSite(test.site)
		if err != nil {
			t.Fatal(err)
		}
		if got := forge.OnSite(site, test.listed); got != test.want {
			t.Errorf("%s listed by %s: %q", test.listed, test.site, got)
		}
	}
}
