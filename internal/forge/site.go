package forge

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// ParseSite reads the address of an instance of a forge, as people give it: without https://, or with the path of one of its APIs, which
// is cut off. The result has neither a slash at its end nor the port that its scheme has anyway. The error, of fault.ErrInvalid, leaves
// the address out, for it could hold a secret.
func ParseSite(address string, apis ...string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || !plainAddress(u) || u.RawQuery != "" || u.Fragment != "" {
		return nil, errAddress()
	}
	site := &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/")}
	for _, api := range apis {
		site.Path = strings.TrimSuffix(site.Path, api)
	}
	if u.Port() == "" || u.Port() == standardPort(u) {
		site.Host = strings.TrimSuffix(strings.TrimSuffix(site.Host, u.Port()), ":")
	}
	return site, nil
}

func plainAddress(u *url.URL) bool {
	return u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http") && u.User == nil
}

func errAddress() error {
	return fault.New("forge address", fault.ErrInvalid, "it is no plain http or https URL", "give it as https://git.example.com")
}

// HostName names a site in restore points, as git's URLs are named there: "github.com", "git.example.com_3000".
func HostName(site *url.URL) string {
	host := strings.ReplaceAll(site.Hostname(), ":", "_")
	if port := site.Port(); port != "" {
		host += "_" + port
	}
	return host
}

// OnSite moves an address for git that a server has listed to the site that was asked, and gives "" for one that is not of it. Servers behind
// a proxy often list themselves under a name or scheme that does not work from outside, and credentials go nowhere else.
func OnSite(site *url.URL, listed string) string {
	u, err := url.Parse(listed)
	if err != nil || !strings.HasPrefix(u.Path, site.Path+"/") {
		return ""
	}
	return (&url.URL{Scheme: site.Scheme, Host: site.Host, Path: u.Path}).String()
}

// WikiBeside is the address of a repository's wiki on most forges: "…/api.git" → "…/api.wiki.git", and "" of "".
func WikiBeside(repository string) string {
	if repository == "" {
		return ""
	}
	return strings.TrimSuffix(repository, ".git") + ".wiki.git"
}

// SetBasicAuth adds a user name and a password to a request's header.
func SetBasicAuth(header http.Header, username string, password fault.Secret) {
	r := http.Request{Header: header}
	r.SetBasicAuth(username, password.Reveal())
}

// Authorize returns a ClientOptions.Authorize: the token after its scheme ("Bearer"), or else user name and password, or nothing.
func Authorize(scheme string, token fault.Secret, username string, password fault.Secret) func(context.Context, http.Header) error {
	return func(_ context.Context, header http.Header) error {
		switch {
		case token != "":
			header.Set("Authorization", scheme+" "+token.Reveal())
		case password != "":
			SetBasicAuth(header, username, password)
		}
		return nil
	}
}

// PlainName reports whether a forge's name of an account or a repository is one segment of a path, of a directory and of an address for
// ssh.
func PlainName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == '/' || r == '\\' || r == ':' || r == 0x7f
	})
}
