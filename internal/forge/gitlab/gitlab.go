// Package gitlab lists accounts and groups of gitlab.com and of GitLab servers, and makes projects and pull mirrors on them.
package gitlab

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Options says which GitLab is asked, and as whom.
type Options struct {
	URL   string       // of the server, with its relative root if it has one; "" for https://gitlab.com
	Token fault.Secret // personal, project or group access token; "" for what is public

	// Username and Password are for git alone, where there is no token: GitLab's API takes no password.
	Username string
	Password fault.Secret

	Copies bool // repositories are made and pushed to: Inspect misses what that takes

	// Client says how the API is reached. Base, Authorize and Secrets are filled in.
	Client forge.ClientOptions
}

// Provider is one account's view of one GitLab.
type Provider struct {
	o      Options
	site   *url.URL // of the server, without slash at its end
	client *forge.Client
	files  *forge.FileClient
}

// Every ability that GitLab has.
var (
	_ forge.Provider    = (*Provider)(nil)
	_ forge.Inspector   = (*Provider)(nil)
	_ forge.Finder      = (*Provider)(nil)
	_ forge.IssueReader = (*Provider)(nil)
	_ forge.Maker       = (*Provider)(nil)
	_ forge.Puller      = (*Provider)(nil)

	_ forge.MetadataReader   = (*Provider)(nil)
	_ forge.MetadataMarker   = (*Provider)(nil)
	_ forge.MetadataCounter  = (*Provider)(nil)
	_ forge.FileGetter       = (*Provider)(nil)
	_ forge.Decoder          = Decode
	_ forge.MetadataRestorer = (*Provider)(nil)
)

// New makes a provider. It sends nothing yet.
func New(o Options) (*Provider, error) {
	site, err := forge.ParseSite(cmp.Or(o.URL, "https://gitlab.com"), "/api/v4")
	if err != nil {
		return nil, err
	}
	o.Client.Base = site.JoinPath("api", "v4").String()
	o.Client.Authorize = authorize(o)
	o.Client.Secrets = []fault.Secret{o.Token, o.Password}
	client, err := forge.NewClient(o.Client)
	if err != nil {
		return nil, fault.Wrap("gitlab", nil, err, "")
	}
	files, err := client.Files(fileHosts(site))
	if err != nil {
		return nil, fault.Wrap("gitlab", nil, err, "")
	}
	return &Provider{o: o, site: site, client: client, files: files}, nil
}

func authorize(o Options) func(context.Context, http.Header) error {
	return func(_ context.Context, header http.Header) error {
		if o.Token != "" {
			header.Set("PRIVATE-TOKEN", o.Token.Reveal())
		}
		return nil
	}
}

// Host implements forge.Provider.
func (p *Provider) Host() string { return forge.HostName(p.site) }

// Requests counts the requests made to the API so far.
func (p *Provider) Requests() int64 { return p.client.Requests() }

// Seen is what the newest answer said of limits and of the token.
func (p *Provider) Seen() forge.Seen { return p.client.Seen() }

// GitCredentials are for git over https; both are "" where there are none. With a token GitLab takes any name.
func (p *Provider) GitCredentials(context.Context) (username string, password fault.Secret, err error) {
	if p.o.Token != "" {
		return "oauth2", p.o.Token, nil
	}
	return p.o.Username, p.o.Password, nil
}

// get asks for one object.
func (p *Provider) get(ctx context.Context, path string, query url.Values, into any) error {
	_, err := p.client.Do(ctx, http.MethodGet, path, query, nil, into)
	return err
}

// pages follows a listing. Servers behind a proxy often link to themselves by a name or scheme that does not work from outside: what
// counts of the next page's address is what follows the host.
func (p *Provider) pages(ctx context.Context, path string, query url.Values) iter.Seq2[forge.Page, error] {
	return p.client.List(ctx, forge.Listing{Path: path, Query: query, Next: func(page forge.Page) (string, error) {
		next, err := forge.NextLink(page)
		if next == "" || err != nil {
			return "", err
		}
		u, err := url.Parse(next)
		if err != nil || !strings.HasPrefix(u.Path, p.site.Path+"/api/v4/") {
			return "", fault.New("", fault.ErrUnavailable, "the server links to a next page that is none of its API's", "")
		}
		u.Scheme, u.Host, u.User = p.site.Scheme, p.site.Host, nil
		return u.String(), nil
	}})
}

// account is who the token belongs to: a person, or the bot of a project or group.
func (p *Provider) account(ctx context.Context) (string, error) {
	var user struct {
		Username string `json:"username"`
	}
	if err := p.get(ctx, "/user", nil, &user); err != nil {
		return "", err
	}
	if user.Username == "" {
		return "", fault.New("gitlab account", fault.ErrUnavailable, "the server answered without a name", "")
	}
	return user.Username, nil
}

// escaped makes one segment of a path of a full path: "acme/tools" → "acme%2Ftools".
func escaped(fullPath string) string { return url.PathEscape(strings.Trim(fullPath, "/")) }

func notFound(err error) bool { return errors.Is(err, fault.ErrNotFound) }
